"""The part of `r1 distill --on-policy` that needs torch: it wires sampler, teacher and trainer; the algorithm is `train/on_policy.py`."""

from collections.abc import Sequence
from typing import Any

from r1cli.commands import finish
from r1cli.commands.grpo_preflight import has_history, keep_known
from r1cli.commands.lora_flags import following
from r1cli.commands.preflight import check_lengths, check_model, check_unused_tokens, context_of, stop_or_warn
from r1cli.commands.resuming import digest, say_done
from r1cli.commands.sampling import Sampler, open_sampler
from r1cli.commands.save_time import first_save
from r1cli.commands.stopping import Stopper, say_unfinished, seconds_of
from r1cli.commands.training import Training, end_of_turn, optimiser_config, spent
from r1cli.engines.model_files import check_handing_over, end_ids
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.io.stream import RowReader
from r1cli.model_folder import load_tokenizer
from r1cli.report.console import Progress
from r1cli.row import Row, seed_of
from r1cli.settings import DistillSettings
from r1cli.text.conversation import prompt_ids
from r1cli.text.prompts import PromptRenderer
from r1cli.train.batches import PACK_LENGTH, Sample
from r1cli.train.checkpoints import named_weights
from r1cli.train.model import check_vocabulary, load_config, load_reference
from r1cli.train.on_policy import OnPolicyConfig, OnPolicyHooks, train_on_policy


def train(settings: DistillSettings, context: Context, folder: str, prompts: list[Row], reader: RowReader, started: float) -> bool:
    """Load student, teacher and sampler, and run the loop; whether the student is done: not where the time limit came first.

    Raises `R1Error` (exit 2) when student and teacher do not share their tokens.
    """
    teacher_folder = model_folder(settings.teacher or "", settings.trust_remote_code)
    limit, prompts = _preflight(settings, context, folder, teacher_folder, prompts, reader)
    training = Training(settings, context, folder=folder, total=settings.steps, temperature=settings.temperature, data=digest(prompts))
    if training.done:
        say_done(training, lambda: _facts(settings, reader, {}))
        return True
    options: dict[str, Any] = {"temperature": settings.temperature, "trust_remote_code": settings.trust_remote_code}
    teacher = load_reference(teacher_folder, dtype=training.dtype, **options)
    config = on_policy_config(settings, training.pad_id, [teacher, training.own_policy])
    with (
        open_sampler(settings, context, model=folder, logprobs=True) as sampler,
        context.console.progress(settings.steps, "steps", context.command) as bar,
        Stopper(seconds_of(settings.time_limit), started, first_save(training)) as stopper,
    ):
        sampler.engine.stopping = stopper.wanted
        fitting = _fitting(prompts, sampler, context, limit)
        wiring = Wiring(training, sampler, stopper, bar)
        if sampler.engine.name != "transformers":  # which has the names of the trainer
            check_handing_over(named_weights(training.accelerator, training.policy), sampler.engine.model)
        training.restore_random()
        with training.naming_the_checkpoint():
            done = train_on_policy(
                training.accelerator,
                training.policy,
                teacher.to(training.accelerator.device),
                training.optimizer,
                config,
                prompts=fitting,
                hooks=wiring.hooks(),
                start_step=training.start_step,
            )
    if done < settings.steps:
        say_unfinished(stopper, context, done, settings.steps, spent(started), before=training.start_step)
        return False
    training.finish(started=started, **_facts(settings, reader, {"prompts": len(fitting), "too_long": len(prompts) - len(fitting)}))
    figures = f", last reverse KL {wiring.last['reverse_kl']:.4f} nats a token" if wiring.last else ""
    context.console.summary(
        [
            f"distill: {settings.steps} steps{figures}, {spent(started)}",
            f"written: {settings.out}/final",
            following(settings),
        ]
    )
    return True


def _facts(settings: DistillSettings, reader: RowReader, counts: dict[str, int]) -> dict[str, Any]:
    """What the manifest of the run says it was made from."""
    inputs = [finish.describe_source(source) for source in reader.sources]
    return {"inputs": inputs, "counts": {**counts, "bad": reader.bad, "steps": settings.steps}}


def plan(settings: DistillSettings, context: Context, folder: str, prompts: list[Row], reader: RowReader) -> None:
    """What a run would do, without loading weights."""
    teacher_folder = model_folder(settings.teacher or "", settings.trust_remote_code)
    _, prompts = _preflight(settings, context, folder, teacher_folder, prompts, reader)
    context.console.summary(
        [
            f"would train `{folder}` for {settings.steps} steps of {settings.prompts_per_step} prompts x {settings.samples} completions "
            f"of its own, scored by `{settings.teacher}`, {len(prompts)} prompts",
            f"would write {settings.out}",
        ]
    )


def _preflight(
    settings: DistillSettings, context: Context, folder: str, teacher: str, prompts: list[Row], reader: RowReader
) -> tuple[int | None, list[Row]]:
    """(tokens that both models have positions for, None: neither says; the prompts without those that --skip-bad leaves out because a model
    has no embedding for one of their tokens). Raises `R1Error` (exit 2) for what cannot work, before weights are loaded."""
    remote = settings.trust_remote_code
    check_tokens(folder, teacher, trust_remote_code=remote)
    tokenizer = load_tokenizer(folder, trust_remote_code=remote)
    end_id = end_of_turn(folder, tokenizer)
    renderer = PromptRenderer(tokenizer, template=settings.template, system=settings.system, think_prefix=settings.think_prefix)
    configs = {model: load_config(model, trust_remote_code=remote) for model in (folder, teacher)}
    beyond = frozenset[int]().union(*(check_vocabulary(model, tokenizer, config) for model, config in configs.items()))
    [(_, prompts)] = keep_known([(0, prompts)], renderer, tokenizer, beyond, reader, context.console.warn)
    findings = check_model(
        tokenizer, renderer, end_id, end_ids(folder, tokenizer), several_turns=any(map(has_history, prompts)), sampled=True
    )
    findings += check_unused_tokens(tokenizer, beyond)
    limit = min((found for found in map(context_of, configs.values()) if found is not None), default=None)
    if prompts:  # longer ones than the shortest are left out where they do not fit
        shortest = min(len(prompt_ids(row, row["prompt"], renderer)) for row in prompts)
        findings += check_lengths([shortest], shortest, settings.max_completion_length, limit)
    stop_or_warn(findings, context)
    return limit, prompts


def check_tokens(student: str, teacher: str, *, trust_remote_code: bool = False) -> None:
    """Refuse (`R1Error`, exit 2) two models whose tokens differ: one's log-probability of the other's token would mean nothing."""
    one, other = (load_tokenizer(folder, trust_remote_code=trust_remote_code).get_vocab() for folder in (student, teacher))
    if one != other:
        differing = len(one.items() ^ other.items())
        raise R1Error(
            f"--on-policy needs a teacher with the student's tokens, and {differing} entries of their vocabularies differ",
            hint="take a teacher of the same family, or leave out --on-policy and learn from its text",
            code=Exit.USAGE,
        )


def on_policy_config(settings: DistillSettings, pad_id: int, policies: Sequence[Any]) -> OnPolicyConfig:
    """The algorithm's part of the settings. policies: the teacher and the student, who are given the same micro-batches."""
    own = {
        "pad_id": pad_id,
        "pack_length": min(policy.row_length(PACK_LENGTH) for policy in policies),
        "alone_beyond": min((policy.alone_beyond for policy in policies if policy.alone_beyond is not None), default=None),
        "optimiser": optimiser_config(settings),
    }
    names = [name for name in OnPolicyConfig.__dataclass_fields__ if name not in own]
    return OnPolicyConfig(**{name: getattr(settings, name) for name in names}, **own)


def _fitting(prompts: list[Row], sampler: Sampler, context: Context, limit: int | None) -> list[Row]:
    """The prompts that leave room for a completion in `limit` tokens and in the sampler's; the others are counted."""
    renderer = sampler.renderer
    assert isinstance(renderer, PromptRenderer)  # a student is sampled in this process
    room = sampler.room() if limit is None else min(sampler.room(), limit - sampler.params.max_tokens)
    fitting = [row for row in prompts if len(prompt_ids(row, row["prompt"], renderer)) <= room]
    if not fitting:
        raise R1Error(
            f"no prompts to train on: {len(prompts)} read, all longer than {room} tokens"
            if prompts
            else "no prompts to train on: the input is empty",
            hint="give prompt rows, or lower --max-completion-length",
            code=Exit.USAGE,
        )
    if len(fitting) < len(prompts):
        context.console.warn(f"{len(prompts) - len(fitting)} prompts left out: longer than {room} tokens")
    return fitting


class Wiring:
    """What `train_on_policy` calls, made of a run directory, a sampler and a progress bar. last: the newest metrics."""

    def __init__(self, training: Training, sampler: Sampler, stopper: Stopper, bar: Progress) -> None:
        self.training, self.sampler, self.stopper, self.bar = training, sampler, stopper, bar
        self.settings: DistillSettings = training.settings
        self.last: dict[str, Any] = {}
        self._shown: list[Row] = []
        bar.advance(training.start_step)
        bar.restart()

    def hooks(self) -> OnPolicyHooks:
        training, stopper = self.training, self.stopper
        return OnPolicyHooks(
            sample=self.sample,
            sync=lambda: self.sampler.engine.load_weights(training.weights()),
            log=self.log,
            save=self.save,
            warn=training.context.console.warn,
            stopping=lambda seconds: stopper.agreed(training.accelerator, seconds),
        )

    def sample(self, rows: list[Row], step: int) -> list[Sample]:
        """The completions of these rows, in order; fewer when the run is asked to end."""
        settings, drawn = self.settings, []
        completions = self.sampler.draw(rows, samples=settings.samples, seed=seed_of(settings.seed, "step", step))
        for completion in completions:
            drawn.append(completion)
            if self.stopper.wanted():
                completions.close()
                break
        drawn.sort(key=lambda d: (d.number, d.row["sample"]))
        self._shown = [d.row for d in drawn[:1]]
        return [Sample(index, d.prompt_ids, d.token_ids, sampler_logprobs=d.logprobs or []) for index, d in enumerate(drawn)]

    def log(self, record: dict[str, Any]) -> None:
        """Metrics, a completion of the step and the bar. Not before the step is made: one that is thrown away leaves nothing."""
        self.training.log(record)
        if self.training.run is not None:
            self.training.run.samples(self._shown, step=record["step"])
        self.last.update(record)
        self.bar.set(f"reverse KL {record['reverse_kl']:.4f}, {record['completion_length']:.0f} tokens")
        self.bar.advance()

    def save(self, step: int) -> None:
        with self.stopper.saving():
            self.training.save(step, self.settings.steps)
