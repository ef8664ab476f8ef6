"""What `sft`, `grpo` and `distill` share: the accelerator, the run directory of the main process, checkpoints and resuming.

accelerate launch -m r1cli grpo ...      every process runs the command; only the first one writes and speaks
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1cli.commands import tracking
from r1cli.commands.before_run import check_adapter
from r1cli.commands.disk_room import check_room
from r1cli.commands.preflight import turn_end
from r1cli.commands.resuming import Standing, check_data, check_resumable, is_done, standing, warn_of_changes, warn_of_held_out
from r1cli.commands.strategy_check import check_strategy, offloaded
from r1cli.engines.model_files import end_ids, refuse_classifier
from r1cli.engines.precision import resolve_dtype
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.checkpoint_folders import checkpoint_folder, checkpoints
from r1cli.io.run_dir import BASE, DATA, HELD_OUT, RunDir
from r1cli.io.whole_folder import naming
from r1cli.model_folder import FETCH_AGAIN, fingerprint, load_tokenizer, loading
from r1cli.row import seed_of
from r1cli.train.agreement import failing_together
from r1cli.train.checkpoints import load_state, named_weights, save_model, save_state
from r1cli.train.logprobs import Policy
from r1cli.train.lora import LoraConfig, LoraReference
from r1cli.train.memory import peak_memory
from r1cli.train.model import accelerator_for, check_vocabulary, check_weights, load_config, load_policy, load_reference
from r1cli.train.offload import OPTIMIZER, REFERENCE, OffloadedReference, OffloadedStates
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.random_states import load_random, save_random
from r1cli.train.state_files import way_out
from r1cli.train.strategy import is_whole, prepare, shard, uses_deepspeed
from r1cli.train.update import NotFinite

if TYPE_CHECKING:
    import torch


class Training:
    """A model being trained, and the run directory it is written to.

    total: steps of the whole run. load: what makes the policy of a folder (`load_policy`). tokenizer: what is saved beside it.
    data, held_out: the digests of what is trained on and of what is measured (`resuming.digest`).
    policy, optimizer: prepared by accelerate. start_step: steps that a resumed run has behind it. checkpoint: the folder it goes on from.
    done: the run to resume has no step left. Nothing is opened or loaded then, and `resuming.say_done` is all there is to do.
    """

    def __init__(
        self,
        settings: Any,
        context: Context,
        *,
        folder: str,
        total: int,
        temperature: float = 1.0,
        reference: bool = False,
        directory: RunDir | None = None,
        load: Callable[..., Policy] | None = None,
        tokenizer: Any = None,
        data: str | None = None,
        held_out: str | None = None,
    ) -> None:
        if load is None:
            refuse_classifier(folder)
        self.settings, self.context, self.data, self.held_out = settings, context, data, held_out
        self.lora = lora_config(settings)
        self.dtype = resolve_dtype(settings.dtype)
        self.accelerator = accelerator_for(self.dtype, settings.seed)
        check_strategy(self.accelerator, settings)
        self.found = standing(self.accelerator, settings.out) if settings.resume and not settings.force else Standing()
        check_data(self.accelerator, settings.out, self.found, data)
        self.done = is_done(self.found, settings.out, total)
        if self.done:
            return
        self.tokenizer = tokenizer or load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
        self.end_id = end_of_turn(folder, self.tokenizer)
        with self._failing_together():  # before anything is written
            check_resumable(self.accelerator, settings, self.found, folder)
            check_weights(folder)
            check_vocabulary(folder, self.tokenizer, load_config(folder, trust_remote_code=settings.trust_remote_code))
            check_adapter(settings, folder, context, scores=load is not None)
        self.base = fingerprint(folder) if self.lora else None
        self.run = directory if directory is not None else self._open_run()
        if hasattr(settings, "track"):
            tracking.begin(self.accelerator, settings, context.command, self.run)
        self.checkpoint = self._resume_from()
        warn_of_held_out(self.checkpoint, held_out, context)
        policy = self._load_policy(folder, load or partial(load_policy, temperature=temperature))
        self.optimiser_config = optimiser_config(settings)
        optimizer = build_optimiser(policy.parameters(), self.optimiser_config)
        self.policy, self.optimizer = prepare(self.accelerator, policy, optimizer, settings.max_grad_norm)
        self.reference: Policy | LoraReference | OffloadedReference | None = None
        if reference and self.lora:
            self.reference = LoraReference(self.own_policy)
        elif reference:
            self.reference = self._load_reference(folder, temperature)
        asked = OPTIMIZER in offloaded(settings)
        states = OffloadedStates(getattr(self.optimizer, "optimizer", self.optimizer)) if asked else None
        self.start_step = load_state(self.optimizer, self.checkpoint, self.reference) if self.checkpoint else 0
        if states is not None:
            states.rest()
        check_room(self, total)

    def _failing_together(self) -> AbstractContextManager[None]:
        """Around reading files: the other processes do not wait for one that cannot."""
        other = R1Error("another process cannot read its files", hint="its own error names them", code=Exit.USAGE)
        return failing_together(self.accelerator, {R1Error: lambda: other})

    def _load_policy(self, folder: str, load: Callable[..., Policy]) -> Policy:
        """The model to go on with: of the checkpoint; with LoRA its adapter, over the model of `folder`."""
        settings, checkpoint = self.settings, self.checkpoint
        adapted: dict[str, Any] = {"lora": self.lora, "dtype": self.dtype} if self.lora else {}
        start, hint = (folder, FETCH_AGAIN) if self.lora or checkpoint is None else (checkpoint, way_out(checkpoint))
        with self._failing_together(), loading(start, hint):
            options = {"gradient_checkpointing": settings.gradient_checkpointing, "trust_remote_code": settings.trust_remote_code}
            policy = load(str(start), **options, **adapted)
            if policy.lora is not None and checkpoint:
                policy.lora.load(checkpoint)
        return policy

    def _load_reference(self, folder: str, temperature: float) -> Policy | OffloadedReference:
        """In the computation type, where the policy computes in a copy of that type too; an average of weights needs float32."""
        dtype = self.dtype if is_whole(self.accelerator) and self.settings.reference_mix == 1.0 else "float32"
        found = load_reference(folder, dtype=dtype, temperature=temperature, trust_remote_code=self.settings.trust_remote_code)
        if REFERENCE in offloaded(self.settings):
            return OffloadedReference(found, self.accelerator.device)
        return shard(self.accelerator, found)

    @property
    def pad_id(self) -> int:
        """Fills rows up to the same length; never attended to and never in a loss, so any id does."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_id

    @property
    def own_policy(self) -> Any:
        """The policy without what accelerate put around it."""
        return self.accelerator.unwrap_model(self.policy)

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
        if not uses_deepspeed(self.accelerator):  # it could not be resumed (`_resume_from`)
            self.context.on_interrupt()
        warn_of_changes(run.changed, self.context)
        return run

    def _resume_from(self) -> Path | None:
        """The checkpoint every process goes on from."""
        self.accelerator.wait_for_everyone()
        if not self.settings.resume:
            return None
        step = self.found.checkpoint
        with self._failing_together():
            if self.run is not None and self.run.resumed_step != step:  # the job that this one waited for had not ended by saving its last
                raise R1Error(f"another job saved in `{self.settings.out}` while this one started", hint="start it again with --resume")
        found = None if step is None else checkpoint_folder(self.settings.out, step)
        if self.run is not None:
            if self.found.final is not None:
                self.run.rewind()  # it ended there, and is to be longer
            self.context.console.info(
                f"resuming `{found}`" if found else f"`{self.settings.out}` has no checkpoint yet: starting at step 1"
            )
        return found

    def restore_random(self) -> None:
        """Draw on from where the checkpoint was. Called last before training: what is loaded on the way there may draw numbers too."""
        if self.checkpoint is not None:
            load_random(self.accelerator, self.checkpoint)

    def weights(self) -> Iterable[tuple[str, "torch.Tensor"]]:
        """The policy's tensors under their checkpoint names, whole on every process: what a sampler takes over."""
        return named_weights(self.accelerator, self.policy)

    def save(self, step: int, total: int, extra: Callable[[Path], None] = lambda folder: None) -> None:
        """A checkpoint after `step` steps; after the last one the plain model goes to `final/` instead, which makes it whole.

        extra: called by every process with the checkpoint's folder, to add files of its own.
        """
        last = step >= total
        with self._final(step) if last else self._checkpoint(step) as folder:
            save_model(self.accelerator, self.policy, self.tokenizer, folder, merged=self.merged, resumable=not last)
            if not last:
                save_state(self.accelerator, self.optimizer, folder, step, self.reference)
                folder.mkdir(parents=True, exist_ok=True)  # of a process without the main one's disk
                save_random(self.accelerator, folder)
                extra(folder)
            self.accelerator.wait_for_everyone()
        self.accelerator.wait_for_everyone()  # for the main one: it is killed soon after another has ended

    @contextmanager
    def _final(self, step: int) -> Iterator[Path]:
        """`final/`, which the main process makes and declares whole. A run that was cut short has made more steps than it says."""
        if self.run is None:
            yield Path(self.settings.out) / "final"
            return
        with self.run.final_model(max(step, self.start_step), **self._facts) as folder:
            yield folder

    @contextmanager
    def _checkpoint(self, step: int) -> Iterator[Path]:
        """The folder of a checkpoint, which the main process makes, removes after an error, and declares whole."""
        if self.run is not None:
            with self.run.checkpoint(step, **self._facts) as folder:
                yield folder
            return
        with naming(f"its part of the checkpoint of step {step}", "; --resume goes on from the last whole checkpoint"):
            yield checkpoint_folder(self.settings.out, step)

    @property
    def _facts(self) -> dict[str, str]:
        """What the manifest of a model says beside its step."""
        facts = {DATA: self.data, HELD_OUT: self.held_out, BASE: self.base}
        return {name: value for name, value in facts.items() if value is not None}

    @property
    def merged(self) -> bool:
        """Whether what is saved is a plain model: with LoRA, the sum of model and adapter."""
        return getattr(self.settings, "lora_export", "merged") == "merged"

    @contextmanager
    def naming_the_checkpoint(self) -> Iterator[None]:
        """Around training: an error that stops it before the weights are harmed names the checkpoint to go on from."""
        try:
            yield
        except NotFinite as error:
            found = checkpoints(Path(self.settings.out))
            last = f"the last checkpoint is `{found[-1]}`" if found else "there is no checkpoint yet"
            raise NotFinite(f"{error.message}; {last}", hint=error.hint, code=error.code) from error

    def log(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A line of metrics.jsonl and of the trackers, from the main process; what is in it (`tracking.finite`)."""
        written = tracking.finite(record, self.context.console.warn)
        if self.run is not None:
            self.run.metrics(written)
        tracking.log(self.accelerator, written)
        return written

    def finish(self, **facts: Any) -> None:
        """Declare the run done. `facts`, and the most memory it held, go into its manifest."""
        if self.run is not None:
            self.run.finish({"command": self.context.command, "settings": self.settings, **facts, **peak_memory()})
            self.run.close()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


def optimiser_config(settings: Any) -> OptimiserConfig:
    """The optimizer's part of a command's settings."""
    return OptimiserConfig(**{name: getattr(settings, name) for name in OptimiserConfig.__dataclass_fields__})


def lora_config(settings: Any) -> LoraConfig | None:
    """The adapters that a command's settings ask for."""
    if getattr(settings, "lora", None) is None:
        return None
    return LoraConfig(
        rank=settings.lora,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        targets=settings.lora_targets,
        seed=seed_of(settings.seed, "lora", 0),
    )


def end_of_turn(folder: str, tokenizer: Any) -> int:
    """The token that ends an assistant turn: of those that generation stops at, the chat template's, else the EOS, else the first."""
    stops = end_ids(folder, tokenizer)
    if not stops:
        raise R1Error(
            f"the tokenizer of `{folder}` has no end-of-sequence token: the model could not learn to stop",
            hint="set eos_token in its tokenizer_config.json",
            code=Exit.USAGE,
        )
    wanted = (turn_end(tokenizer), tokenizer.eos_token_id)
    return next((token for token in wanted if token in stops), min(stops))


def spent(started: float) -> str:
    """Time and memory for a summary line."""
    peaks = peak_memory()
    on_gpu = f" and {peaks['peak_gpu_memory_gib']:.1f} GiB of the GPU" if "peak_gpu_memory_gib" in peaks else ""
    return f"{time.time() - started:,.0f} s, {peaks['peak_memory_gib']:.1f} GiB{on_gpu} at most"
