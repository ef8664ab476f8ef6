"""What a run would only meet once its directory is made, looked at before that, and by a dry run as well: else the corrected command would
be refused, because the directory is there. And what is to be said of steps that no run of this length reaches."""

import dataclasses
from collections.abc import Container, Mapping, Sequence
from typing import Any

from r1cli.commands.grpo_prompts import sources_of
from r1cli.engines.asked import check_engine
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.scorer import Scorer
from r1cli.rewards.user import check_columns
from r1cli.row import Row
from r1cli.shared_settings import Changing
from r1cli.train.alarms import COMPARING, MEASUREMENTS

DRAWN = ("sample", "finish_reason", "num_tokens", "model", "seed", "think_prefix")  # fields that a completion brings


def check_rewards(specs: Sequence[RewardSpec], timeout: float) -> None:
    """Refuse (`R1Error`) rewards that cannot be made. Users' own are imported, in a worker: files, functions, their parameters."""
    with Scorer([dataclasses.replace(spec, start=0) for spec in specs], workers=1, timeout=timeout):
        pass


def check_asked(specs: Sequence[RewardSpec], rows: Sequence[Row]) -> None:
    """Refuse (`R1Error`, exit 2) a function of the user's that asks for a field which neither the rows nor their completions have."""
    own = [spec for spec in specs if ":" in spec.source]
    fields = {*DRAWN, *(name for row in rows for name in row)} if own else set()
    for spec in own:
        check_columns(spec.source, fields)


def check_limit(settings: Any) -> None:
    """Refuse (`R1Error`, exit 2) to read no row at all where there is nothing to do without one."""
    if settings.limit == 0:
        raise R1Error("--limit 0 reads no rows", hint="raise --limit, or leave it out for all rows", code=Exit.USAGE)


def check_sampler(settings: Any) -> None:
    """Refuse (`R1Error`) an engine that is not installed, or lacks what is asked of it."""
    check_engine(
        settings.engine,
        urls=settings.url,
        api_key_env=settings.api_key_env,
        sleep=settings.engine_sleep,
        processes=settings.num_processes,
    )


def check_adapter(settings: Any, folder: str, context: Context, *, scores: bool = False) -> None:
    """Refuse (`R1Error`, exit 2) --lora-targets that the model does not have; warn of a rank beyond its width.

    It is asked of a model without weights, in a second. One that cannot be made that way is left to the loading. scores: it is trained as
    a reward model.
    """
    if getattr(settings, "lora", None) is None:
        return
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from r1cli.train.lora import CLASSIFICATION, LANGUAGE, LoraConfig, add_lora
    from r1cli.train.model import load_config

    config = load_config(folder, trust_remote_code=settings.trust_remote_code)
    width = getattr(config.get_text_config(), "hidden_size", None)
    if width is not None and settings.lora > width:
        context.console.warn(f"--lora {settings.lora} is more than the {width} that the model is wide: the adapters outweigh their layers")
    kind: Any = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    adapter = LoraConfig(rank=1, dropout=settings.lora_dropout, targets=settings.lora_targets)
    try:
        with init_empty_weights(include_buffers=True):
            model = kind.from_config(config, trust_remote_code=settings.trust_remote_code)
            add_lora(model, adapter, task=CLASSIFICATION if scores else LANGUAGE)
    except R1Error:
        raise
    except Exception as error:  # an architecture's own code, that wants numbers where there are none
        context.console.detail(f"--lora-targets are looked at when the model is loaded ({type(error).__name__})")


def beyond(settings: Any, rewards: Sequence[RewardSpec], sources: Mapping[str, str]) -> list[str]:
    """What `r1 grpo` is told to do and cannot in a run of --steps, in words. No mistake for sure: --steps may be raised when it is resumed.

    sources: setting -> the layer that set it. Steps of a method's own (a preset's) are not held against a run that is shorter.
    """
    total, a_rollout = settings.steps, settings.updates_per_rollout * settings.epochs_per_rollout
    last = (total - 1) // a_rollout * a_rollout  # steps behind the run when its last rollout begins: what begins later is in none
    late = [(f"reward `{spec.name}`", spec.start) for spec in rewards]
    late += [(f"--add {' '.join(source.files)}", source.start) for source in sources_of(settings)]
    changes = Changing(settings.max_completion_length).switches()
    late += [(f"--max-completion-length {value}", start) for start, value in changes]
    of_rollouts = f"rollouts of {a_rollout} steps, the last of which begins at step {last}"
    why = {start: f"--steps is {total}" if start >= total else f"the run has {of_rollouts}" for _, start in late}
    said = [f"{what} begins at step {start}, and {why[start]}: it never counts" for what, start in late if start > last]
    given = {name for name, source in sources.items() if source not in ("default", "preset")}
    said += long_warmup(settings, total) + _on_the_way(settings, total, "before the first step and after the last one")
    if "reference_every" in given and settings.beta and settings.reference_every > total:
        said.append(f"--reference-every {settings.reference_every}: the run has {total} steps, the reference never follows the policy")
    clips = [name for name in ("clip_low", "clip_high", "clip_cap") if sources.get(name) == "flag"]
    if clips and a_rollout == 1:
        flags = " ".join(f"--{name.replace('_', '-')}" for name in clips)
        said.append(f"{flags}: a rollout serves one step, where the ratio is 1 and nothing is clipped (--updates-per-rollout 4)")
    return said + _alarms_in_vain(settings, -(-total // a_rollout), given)


def _alarms_in_vain(settings: Any, rollouts: int, given: Container[str]) -> list[str]:
    """What is to be said of alarms of `r1 grpo` that a run of so many rollouts is too short for."""
    steps, asked = settings.alarm_steps, (settings.stop_on or "").split(",")
    never = [name for name in asked if name and rollouts < steps * (2 if name in COMPARING else 1)]
    flag = f"--stop-on {','.join(never)}" if never else f"--alarm-steps {steps}"
    if not never and ("alarm_steps" not in given or rollouts >= steps):
        return []
    twice = ", and as many to compare them with" if never and all(name in COMPARING for name in never) else ""
    return [f"{flag}: the run has {rollouts} rollouts, and a sign must be there in {steps}{twice} (--alarm-steps)"]


def _on_the_way(settings: Any, total: int, otherwise: str) -> list[str]:
    """What is to be said of saving and measuring on the way that a run of `total` steps does not come to. otherwise: when it measures."""
    said, run, every = [], f"the run has {total} steps", getattr(settings, "held_out_every", 0)
    if settings.save_every and settings.save_every >= total:
        said.append(f"--save-every {settings.save_every}: {run}, no checkpoint is saved before its end")
    if every and every >= total:
        said.append(f"--held-out-every {every}: {run}, the held-out rows are measured {otherwise} only")
    return said


def without_effect(settings: Any, sources: Mapping[str, str], total: int) -> list[str]:
    """What is to be said of flags of `r1 sft`, `rm` and `distill` that can do nothing in a run of `total` steps. sources: who set them."""
    said = [*long_warmup(settings, total), *_on_the_way(settings, total, "after the last one")]
    run, every, stop_on = (
        f"the run has {total} steps",
        getattr(settings, "held_out_every", 0),
        (getattr(settings, "stop_on", None) or "").split(","),
    )
    measured = -(-total // every) if every else 0
    if "overfitting" in stop_on and measured <= MEASUREMENTS:
        said.append(f"--stop-on overfitting: {run}, its held-out loss is measured {measured} times, and {MEASUREMENTS + 1} tell")
    steps = getattr(settings, "alarm_steps", 0)
    asked = "diverging" in stop_on or sources.get("alarm_steps", "default") != "default"
    if asked and total < 2 * steps:
        flag = "--stop-on diverging" if "diverging" in stop_on else f"--alarm-steps {steps}"
        said.append(f"{flag}: {run}, and the alarm compares the loss of {steps} steps with that of the first {steps} (--alarm-steps)")
    return said


def long_warmup(settings: Any, total: int) -> list[str]:
    """What is to be said of a warm-up that is not over before the last of `total` steps."""
    if settings.warmup_steps < total or settings.warmup_steps == 0:
        return []
    return [f"--warmup-steps {settings.warmup_steps}: the run has {total} steps, the learning rate rises to the end"]
