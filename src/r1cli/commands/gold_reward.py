"""What the chosen rewards give the gold answer, written the way the template asks for: the dearest mistake is a reward that nothing earns.

A template that asks for a box and a reward that reads tags, a function that looks for "<think>" at the start of completions whose prompt
opened it, a penalty larger than what a right answer is worth: all of them train for hours without a sign but the mean reward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from r1cli.commands.preflight import FAIL, OK, WARN, Finding
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.scorer import Scorer
from r1cli.rewards.sets import applies
from r1cli.row import Row
from r1cli.text.choices import gold_of, options_of
from r1cli.text.templates import OPEN

MOST = 16  # rows that are tried
RULES = ("accuracy", "math", "choice", "format")  # rewards whose value for a right answer in the right form is known: 1
COMPARING = RULES[:3]
LEAST = 0.5  # mean of such a reward below which nothing would be learnt but noise
REASONING = "Let me work it out step by step.\nEvery step is checked, and the result follows."
FORMS = {"tag": "\n<answer>{}</answer>", "boxed": "\nThe answer is \\boxed{{{}}}."}
ASKED = {"r1-zero": ("tag",), "boxed": ("boxed",), "reflect": ("boxed",)}  # what a template tells the model to write
NO_ANSWER = "unknown"
FIX = "let --template ask for what the reward reads (boxed, r1-zero), or leave the reward's style off"


def check_gold_reward(rows: Sequence[Row], specs: Sequence[RewardSpec], template: str, think_prefix: str, timeout: float) -> list[Finding]:
    """Score the gold answers of some rows, and no answer in the same form, with all rules; [] when no rule compares answers.

    think_prefix: what the prompt has opened (`PromptRenderer.think_prefix`). Programs and rows without a gold are left out.
    """
    specs = [replace(spec, start=0) for spec in specs]
    comparing = [spec for spec in specs if spec.source in COMPARING]
    known = [row for row in rows if _has_gold(row) and any(applies(spec.sets, row) for spec in comparing)]
    if not known:
        return []
    tried = known[:: max(1, len(known) // MOST)][:MOST]
    forms = ASKED.get(template, tuple(FORMS))
    with Scorer(specs, workers=1, timeout=timeout) as scorer:
        right = {form: list(scorer.score([_completed(row, _gold(row), form, think_prefix) for row in tried])) for form in forms}
        wrong = {form: list(scorer.score([_completed(row, NO_ANSWER, form, think_prefix) for row in tried])) for form in forms}
    form = max(forms, key=lambda name: _total(right[name]))
    return _findings(specs, right[form], wrong[form], template, form)


def _findings(specs: Sequence[RewardSpec], right: Sequence[Row], wrong: Sequence[Row], template: str, form: str) -> list[Finding]:
    means = {spec.name: _mean([row["rewards"][spec.name] for row in right]) for spec in specs}
    total, worth = _total(right), _total(wrong)
    shown = ", ".join(f"{name} {value:.2f}" for name, value in means.items() if value is not None)
    found = []
    for spec in specs:
        value = means[spec.name]
        if spec.source not in RULES or value is None or value >= 1.0:
            continue
        judged = [row for row in right if row["rewards"][spec.name] is not None]
        first = next(row for row in judged if row["rewards"][spec.name] < 1.0)
        text = f"reward `{spec.name}` gives {value:.2f} on average to the gold answers in the form of template `{template}`"
        text += f", row `{first.get('id')}` {first['rewards'][spec.name]:g}: {first['completion'][-60:]!r}"
        found.append(Finding("gold reward", FAIL if value < LEAST else WARN, text, FIX))
    if total <= worth:
        text = f"a right answer earns {total:.2f} ({shown}), no more than none ({worth:.2f})"
        found.append(Finding("gold reward", FAIL, text, "give the reward that compares answers a larger weight: accuracy=2"))
    return found or [Finding("gold reward", OK, f"a right answer ({form}) earns {total:.2f} ({shown}), none {worth:.2f}")]


def _completed(row: Row, answer: str, form: str, think_prefix: str) -> Row:
    """The row as a model would have completed it that reasons and gives this answer."""
    opening = "" if think_prefix else f"{OPEN}\n"
    whole = "\\boxed" in answer or "####" in answer or len(answer) > 200  # a worked solution that ends in its answer
    rest = f"\n{answer}" if whole else FORMS[form].format(answer)
    completion = f"{opening}{REASONING}\n</think>{rest}"
    more: dict[str, Any] = {"think_prefix": think_prefix} if think_prefix else {}
    more |= {"sample": 0, "finish_reason": "stop", "num_tokens": len(completion.split()), "model": "gold", "seed": 0}
    return row.with_fields(completion=completion, **more)


def _has_gold(row: Mapping[str, Any]) -> bool:
    return row.get("answer") not in (None, "", []) and not row.get("tests")


def _gold(row: Row) -> str:
    if row.get("choices"):
        return gold_of(row, options_of(row)).label
    answer = row["answer"]
    return str(answer[0] if isinstance(answer, list) else answer)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _total(rows: Sequence[Row]) -> float:
    return sum(row["reward"] for row in rows) / len(rows)
