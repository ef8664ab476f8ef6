"""Signs that a run learns nothing or learns the wrong thing, each said once with what to do about it. Pure functions of metrics records.

The thresholds are far outside of what a run that works shows; a run may still cross one for a good reason, so nothing stops unless
`--stop-on` names the alarm.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ENTROPY_LEFT = 0.1  # share of the entropy of the first steps
CLIPPED, TRUNCATED = 0.3, 0.5
MEASUREMENTS = 3  # of the held-out loss, above its best, before that is said
LANGUAGE_LOST = 0.15  # fall of the mean language reward below its best
LENGTH_TIED, LENGTH_MOVED = 0.5, 1.25  # correlation of score and length; ratio of lengths now and at first
PREFERENCE_RISE, ACCURACY_FALL = 0.02, 0.05  # of a reward model's mean score; of accuracy, where it is more than chance
RULES = ("accuracy", "math", "choice", "code")
COMPARING = ("entropy", "reward-length", "reward-hacking")  # of `SIGNS`: the last rollouts with the first, so twice as many are needed

Memory = dict[str, list[float]]  # what is remembered of earlier steps; plain numbers, saved with a checkpoint
MEMORY = "alarms.json"  # in a checkpoint of SFT (GRPO has it in its progress)


@dataclass(frozen=True, slots=True)
class Alarm:
    """name: as `--stop-on` takes it. text: what was seen. fix: what to do."""

    name: str
    text: str
    fix: str


Sign = Callable[[Mapping[str, float], Memory, int], tuple[str, str] | None]


def look(
    record: Mapping[str, float], memory: Memory, steps: int, signs: Mapping[str, Sign] | None = None, stop_on: str | None = None
) -> list[Alarm]:
    """The alarms that a step raises for the first time. steps: how many steps in a row must show a sign (or are averaged).

    signs: those to look for, by name; None: those of reinforcement learning. stop_on: those that end the run, with commas between; one that
    was only said by an earlier start of the run is raised again.
    """
    raised = []
    for name, sign in (SIGNS if signs is None else signs).items():
        alarm = sign(record, memory, steps)
        done = ["said", "stopped"] if name in (stop_on or "").split(",") else ["said"]
        if alarm is not None and not memory.get(f"{done[-1]} {name}"):
            memory.update({f"{what} {name}": [1.0] for what in done})
            raised.append(Alarm(name, *alarm))
    return raised


def _constant_reward(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    same = record.get("reward_min") == record.get("reward_max")
    if not _in_a_row("constant reward", same, memory, steps):
        return None
    text = f"every completion of the last {steps} rollouts had the reward {record.get('reward', 0.0):g}: there is nothing to learn from"
    return text, "look at samples.jsonl and `r1 check`: a format that the reward cannot read, or prompts that are too hard or too easy"


def _zero_gradient(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    if not _in_a_row("zero gradient", record.get("grad_norm", 0.0) == 0.0, memory, steps):
        return None
    text = f"the gradient was zero in the last {steps} rollouts: the weights do not move"
    if record.get("truncated") == 1.0:
        return f"{text}; every completion was cut", "raise --max-completion-length; what is cut is masked without --no-mask-truncated"
    return text, "give prompts of mixed difficulty or a larger --group-size, or use --dynamic-sampling accuracy"


def _clipped(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    mean = _mean_of_last("clipped", record.get("clip_fraction"), memory, steps)
    if mean is None or mean <= CLIPPED:
        return None
    text = f"the clip silenced (cispo: capped) {mean:.0%} of the tokens in the last {steps} rollouts"
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
    return text, "raise --entropy-coef, or --clip-high (DAPO: 0.28) where a rollout serves several steps, or lower --lr"


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
    text = f"{mean:.0%} of the completions of the last {steps} rollouts were cut at the length limit"
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


def _reward_length(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    """A reward model is paid in length: its score goes with length inside of groups, and its completions have moved that way."""
    for key in [key for key in record if key.startswith("length_correlation/")]:
        name = key.partition("/")[2]
        tied = _mean_of_last(key, record[key], memory, steps)
        length = _first_and_last(f"length/{name}", record.get(f"length/{name}"), memory, steps)
        if tied is None or length is None or abs(tied) <= LENGTH_TIED:
            continue
        ratio = length[1] / max(length[0], 1.0)
        if (ratio if tied > 0 else 1 / max(ratio, 1e-9)) >= LENGTH_MOVED:
            text = (
                f"`{name}` goes with length (correlation {tied:+.2f} in groups), which went from {length[0]:.0f} to {length[1]:.0f} tokens"
            )
            return (
                text,
                "take a reward model trained on length-balanced pairs (r1 reject --pairs --balance-lengths), or add length or overlong",
            )
    return None


def _reward_hacking(record: Mapping[str, float], memory: Memory, steps: int) -> tuple[str, str] | None:
    """A reward model's score rises while rule accuracy falls, on held-out problems where they are measured, else in the rollouts."""
    names = [key.partition("/")[2] for key in record if key.startswith("length/")]
    fallen = _accuracy_fallen(record, memory, steps, begun=bool(names))
    for name in names:
        score = _first_and_last(f"preference {name}", record.get(f"reward/{name}"), memory, steps)
        if fallen is not None and score is not None and score[1] - score[0] >= PREFERENCE_RISE:
            text = f"`{name}` rose from {score[0]:.2f} to {score[1]:.2f} while {fallen}"
            return text, "start preference rewards later (R1: the last 400 of 1,700 steps), give them less weight, or raise --beta"
    return None


def _accuracy_fallen(record: Mapping[str, float], memory: Memory, steps: int, *, begun: bool) -> str | None:
    """What to say of an accuracy that has fallen by more than chance since reward models began to count; None when it has not."""
    held_out = record.get("held_out/accuracy")
    if held_out is not None:
        before = memory.setdefault("held-out accuracy", [held_out])
        if not begun:
            before[0] = held_out
        variance = (before[0] * (1 - before[0]) + held_out * (1 - held_out)) / max(1.0, record.get("held_out/problems", 1.0))
        memory["held-out fallen"] = [held_out] if before[0] - held_out > max(ACCURACY_FALL, 2 * math.sqrt(variance)) else []
    if "held-out accuracy" in memory:
        now = memory.get("held-out fallen")
        return f"the accuracy on held-out problems fell from {memory['held-out accuracy'][0]:.2f} to {now[0]:.2f}" if now else None
    rule = next((name for name in RULES if begun and f"reward/{name}" in record), None)
    found = None if rule is None else _first_and_last(f"rule {rule}", record[f"reward/{rule}"], memory, steps)
    if found is None or found[0] - found[1] <= 2 * ACCURACY_FALL:
        return None
    return f"`{rule}` fell from {found[0]:.2f} to {found[1]:.2f}"


SFT_SIGNS: dict[str, Sign] = {"diverging": _diverging, "overfitting": _overfitting}
"""The alarms of supervised fine-tuning by their names."""

SIGNS: dict[str, Sign] = {
    "constant-reward": _constant_reward,
    "zero-gradient": _zero_gradient,
    "clipped": _clipped,
    "entropy": _entropy,
    "language": _language,
    "truncated": _truncated,
    "reward-length": _reward_length,
    "reward-hacking": _reward_hacking,
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


def _first_and_last(key: str, value: float | None, memory: Memory, steps: int) -> tuple[float, float] | None:
    """Means over the first and over the last `steps` values; None before there are twice as many."""
    if value is None:
        return None
    first = memory.setdefault(f"first {key}", [])
    if len(first) < steps:
        first.append(value)
        return None
    mean = _mean_of_last(f"last {key}", value, memory, steps)
    return None if mean is None else (sum(first) / steps, mean)
