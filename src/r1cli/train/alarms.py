"""Signs that a run learns nothing or learns the wrong thing, each said once with what to do about it. Pure functions of metrics records.

The thresholds are far outside of what a run that works shows; a run may still cross one for a good reason, so nothing stops unless
`--stop-on` names the alarm.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

ENTROPY_LEFT = 0.1  # share of the entropy of the first steps
CLIPPED, TRUNCATED = 0.3, 0.5
MEASUREMENTS = 3  # of the held-out loss, above its best, before that is said
LANGUAGE_LOST = 0.15  # fall of the mean language reward below its best

Memory = dict[str, list[float]]  # what is remembered of earlier steps; plain numbers, saved with a checkpoint


@dataclass(frozen=True, slots=True)
class Alarm:
    """name: as `--stop-on` takes it. text: what was seen. fix: what to do."""

    name: str
    text: str
    fix: str


Sign = Callable[[Mapping[str, float], Memory, int], tuple[str, str] | None]


def look(record: Mapping[str, float], memory: Memory, steps: int, signs: Mapping[str, Sign] | None = None) -> list[Alarm]:
    """The alarms that a step raises for the first time. steps: how many steps in a row must show a sign (or are averaged).

    signs: those to look for, by name; None: those of reinforcement learning.
    """
    raised = []
    for name, sign in (SIGNS if signs is None else signs).items():
        alarm = sign(record, memory, steps)
        if alarm is not None and not memory.get(f"said {name}"):
            memory[f"said {name}"] = [1.0]
            raised.append(Alarm(name, *alarm))
    return raised


def _constant_reward(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    same = record.get("reward_min") == record.get("reward_max")
    if not _in_a_row("constant reward", same, memory, steps):
        return None
    text = f"every completion of the last {steps} steps had the reward {record.get('reward', 0.0):g}: there is nothing to learn from"
    return text, "look at samples.jsonl and `r1 check`: a format that the reward cannot read, or prompts that are too hard or too easy"


def _zero_gradient(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    if not _in_a_row("zero gradient", record.get("grad_norm", 0.0) == 0.0, memory, steps):
        return None
    text = f"the gradient was zero in the last {steps} steps: the weights do not move"
    return text, "give prompts of mixed difficulty or a larger --group-size, or use --dynamic-sampling accuracy"


def _clipped(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    mean = _mean_of_last("clipped", record.get("clip_fraction"), memory, steps)
    if mean is None or mean <= CLIPPED:
        return None
    text = f"the clip silenced {mean:.0%} of the tokens in the last {steps} steps"
    return text, "lower --lr, or train with fewer --updates-per-rollout x --epochs-per-rollout"


def _entropy(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    entropy = record.get("entropy")
    if entropy is None:
        return None
    first = memory.setdefault("first entropies", [])
    if len(first) < steps:
        first.append(entropy)
        return None
    mean, start = _mean_of_last("entropy", entropy, memory, steps), sum(first) / len(first)
    if mean is None or mean >= ENTROPY_LEFT * start:
        return None
    text = f"the entropy fell from {start:.3f} to {mean:.3f} nats: completions become the same, and exploration ends"
    return text, "raise --clip-high (DAPO: 0.28) or --entropy-coef, or lower --lr"


def _language(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    mean = _mean_of_last("language", record.get("reward/language"), memory, steps)
    if mean is None:
        return None
    best = memory.setdefault("best language", [mean])
    best[0] = max(best[0], mean)
    if mean >= best[0] - LANGUAGE_LOST:
        return None
    text = f"the share of words in the target language fell from {best[0]:.2f} to {mean:.2f}"
    return text, "give the language reward more weight: language=2"


def _truncated(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    mean = _mean_of_last("truncated", record.get("truncated"), memory, steps)
    if mean is None or mean <= TRUNCATED:
        return None
    text = f"{mean:.0%} of the completions of the last {steps} steps were cut at the length limit"
    return text, "raise --max-completion-length, or add the reward overlong; `r1 check` shows whether the model can end its turn"


def _diverging(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    loss = record["loss"]
    first = memory.setdefault("first losses", [])
    if len(first) < steps:
        first.append(loss)
        return None
    mean, start = _mean_of_last("loss", loss, memory, steps), sum(first) / len(first)
    if mean is None or mean <= start:
        return None
    return f"the loss was {start:.3f} over the first {steps} steps and is {mean:.3f} over the last", "lower --lr, or raise --warmup-steps"


def _overfitting(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    loss = record.get("held_out_loss")
    if loss is None:
        return None
    best = memory.setdefault("best held-out loss", [loss])
    worse = loss > best[0]
    best[0] = min(best[0], loss)
    if not _in_a_row("overfitting", worse, memory, MEASUREMENTS):
        return None
    text = f"the held-out loss was above its best ({best[0]:.4f}) {MEASUREMENTS} times in a row, and is {loss:.4f}"
    return text, "train for fewer --epochs; with --save-every an earlier checkpoint is there"


SFT_SIGNS: dict[str, Sign] = {"diverging": _diverging, "overfitting": _overfitting}
"""The alarms of supervised fine-tuning by their names."""

SIGNS: dict[str, Sign] = {
    "constant-reward": _constant_reward,
    "zero-gradient": _zero_gradient,
    "clipped": _clipped,
    "entropy": _entropy,
    "language": _language,
    "truncated": _truncated,
}
"""Every alarm by its name."""


def _in_a_row(key: str, seen: bool, memory: Memory, steps: int) -> bool:
    """Whether a sign was seen in this step and the `steps` - 1 before it."""
    count = memory.get(key, [0.0])[0] + 1 if seen else 0.0
    memory[key] = [count]
    return count >= steps


def _mean_of_last(key: str, value: float | None, memory: Memory, steps: int) -> float | None:
    """Mean over the last `steps` values; None before there are so many."""
    if value is None:
        return None
    last = [*memory.get(key, []), value][-steps:]
    memory[key] = last
    return sum(last) / steps if len(last) == steps else None
