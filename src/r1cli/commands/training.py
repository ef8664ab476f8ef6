"""What `sft`, `grpo` and `distill` share: the accelerator, the run directory of the main process, checkpoints and resuming.

accelerate launch -m r1cli grpo ...      every process runs the command; only the first one writes and speaks
"""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1cli.commands import tracking
from r1cli.engines.model_files import end_ids
from r1cli.engines.precision import resolve_dtype
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.run_dir import RunDir, checkpoint_folder, checkpoints
from r1cli.train.checkpoints import load_state, named_weights, save_model, save_state
from r1cli.train.logprobs import Policy
from r1cli.train.model import accelerator_for, load_policy, load_tokenizer
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.strategy import prepare, shard, uses_deepspeed
from r1cli.train.update import NotFinite

if TYPE_CHECKING:
    import torch


class Training:
    """A model being trained, and the run directory it is written to.

    policy, optimizer: prepared by accelerate. start_step: steps that a resumed run has behind it. checkpoint: the folder it goes on from.
    """

    def __init__(
        self,
        settings: Any,
        context: Context,
        *,
        folder: str,
        temperature: float = 1.0,
        reference: bool = False,
        directory: RunDir | None = None,
    ) -> None:
        self.settings, self.context = settings, context
        self.dtype = resolve_dtype(settings.dtype)
        self.accelerator = accelerator_for(self.dtype)
        self.run = directory if directory is not None else self._open_run()
        if hasattr(settings, "track"):
            tracking.begin(self.accelerator, settings, context.command)
        self.tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
        self.end_id = end_of_turn(folder, self.tokenizer)
        self.checkpoint = checkpoint = self._resume_from()
        options = {"temperature": temperature, "trust_remote_code": settings.trust_remote_code}
        policy = load_policy(str(checkpoint or folder), gradient_checkpointing=settings.gradient_checkpointing, **options)
        self.optimiser_config = optimiser_config(settings)
        optimizer = build_optimiser(policy.parameters(), self.optimiser_config)
        self.policy, self.optimizer = prepare(self.accelerator, policy, optimizer, settings.max_grad_norm)
        self.reference: Policy | None = None
        if reference:
            self.reference = shard(self.accelerator, load_policy(folder, **options).requires_grad_(False).eval())
        self.start_step = load_state(self.optimizer, checkpoint, self.reference) if checkpoint else 0

    @property
    def pad_id(self) -> int:
        """Fills rows up to the same length; never attended to and never in a loss, so any id does."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_id

    def row_length(self, wanted: int) -> int:
        """Positions of a row that several sequences may share (`Policy.row_length`)."""
        return self.accelerator.unwrap_model(self.policy).row_length(wanted)

    def _open_run(self) -> RunDir | None:
        if not self.accelerator.is_main_process:
            return None
        settings = self.settings
        run = RunDir.open(
            settings.out,
            settings=settings,
            sources=self.context.sources,
            command=self.context.command,
            resume=settings.resume,
            force=settings.force,
        )
        self.context.on_interrupt()
        for name, (before, now) in run.changed.items():
            self.context.console.warn(f"--{name.replace('_', '-')} was {before} when the run started, now {now}")
        return run

    def _resume_from(self) -> Path | None:
        """The checkpoint every process goes on from."""
        self.accelerator.wait_for_everyone()
        if not self.settings.resume:
            return None
        found = checkpoints(Path(self.settings.out))
        if found and uses_deepspeed(self.accelerator):
            raise R1Error(
                "a run cannot be resumed with DeepSpeed: its optimizer's state is not kept",
                hint="use FSDP2 (examples/accelerate/fsdp2.yaml), which resumes from any run's checkpoint",
                code=Exit.USAGE,
            )
        if self.run is not None:
            self.context.console.info(
                f"resuming `{found[-1]}`" if found else f"`{self.settings.out}` has no checkpoint yet: starting at step 1"
            )
        return found[-1] if found else None

    def weights(self) -> Iterable[tuple[str, "torch.Tensor"]]:
        """The policy's tensors under their checkpoint names, whole on every process: what a sampler takes over."""
        return named_weights(self.accelerator, self.policy)

    def save(self, step: int, total: int, extra: Callable[[Path], None] = lambda folder: None) -> None:
        """A checkpoint after `step` steps; after the last one the plain model goes to `final/` instead.

        extra: called by every process with the checkpoint's folder, to add files of its own.
        """
        if step == total:
            final = Path(self.settings.out) / "final"
            save_model(self.accelerator, self.policy, self.tokenizer, final)
            return
        theirs = checkpoint_folder(self.settings.out, step)  # what the main process makes
        with nullcontext(theirs) if self.run is None else self.run.checkpoint(step) as folder:
            save_model(self.accelerator, self.policy, self.tokenizer, folder)
            save_state(self.accelerator, self.optimizer, folder, step, self.reference)
            folder.mkdir(parents=True, exist_ok=True)  # of a process without the main one's disk
            extra(folder)
            self.accelerator.wait_for_everyone()

    @contextmanager
    def naming_the_checkpoint(self) -> Iterator[None]:
        """Around training: an error that stops it before the weights are harmed names the checkpoint to go on from."""
        try:
            yield
        except NotFinite as error:
            found = checkpoints(Path(self.settings.out))
            last = f"the last checkpoint is `{found[-1]}`" if found else "there is no checkpoint yet"
            raise NotFinite(f"{error.message}; {last}", hint=error.hint, code=error.code) from error

    def log(self, record: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl and of the trackers, from the main process."""
        if self.run is not None:
            self.run.metrics(record)
        tracking.log(self.accelerator, record)

    def finish(self, **facts: Any) -> None:
        """Declare the run done."""
        if self.run is not None:
            self.run.finish({"command": self.context.command, "settings": self.settings, **facts})
            self.run.close()
        self.accelerator.end_training()


def optimiser_config(settings: Any) -> OptimiserConfig:
    """The optimizer's part of a command's settings."""
    names = OptimiserConfig.__dataclass_fields__
    return OptimiserConfig(**{name: getattr(settings, name) for name in names})


def end_of_turn(folder: str, tokenizer: Any) -> int:
    """The token that ends an assistant turn: the tokenizer's EOS when generation stops there, else the first id that it stops at."""
    stops = end_ids(folder, tokenizer)
    if not stops:
        raise R1Error(
            f"the tokenizer of `{folder}` has no end-of-sequence token: the model could not learn to stop",
            hint="set eos_token in its tokenizer_config.json",
            code=Exit.USAGE,
        )
    return tokenizer.eos_token_id if tokenizer.eos_token_id in stops else min(stops)


def peak_memory_gib() -> float:
    """Most memory this process has held (resident, GiB)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def spent(started: float) -> str:
    """Time and memory for a summary line."""
    return f"{time.time() - started:,.0f} s, {peak_memory_gib():.1f} GiB at most"
