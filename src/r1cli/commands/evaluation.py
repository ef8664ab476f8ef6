"""Scored completion rows become problems, and problems become scores: what lies between `r1 eval` and `metrics`.

What makes a result silently wrong is refused here: the same completion twice, rows of which none can be judged.
"""

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.metrics.intervals import ProblemMeans
from r1cli.metrics.scores import Problem, summarise
from r1cli.rewards.accuracy import MathReward
from r1cli.rewards.refusal import SAFE, UNSAFE
from r1cli.rewards.reward import RewardSpec
from r1cli.row import Row
from r1cli.text.answers import find_answer
from r1cli.text.choice_answer import chosen
from r1cli.text.choices import options_of
from r1cli.text.think import opened_by

Judged = tuple[bool, str | None, bool | None, int | None]
"""What is kept of a completion: right?, its answer, cut at the length limit?, tokens."""


def answer_of(row: Row, reward: str) -> str | None:
    """What a completion answers, read as the reward reads it: the label of an option, else the answer it commits to; None without one."""
    opened = opened_by(row.get("think_prefix"))
    if row.get("choices") or reward == "choice":
        option = chosen(row["completion"], options_of(row), opened)
        return None if option is None else option.label
    found = find_answer(row["completion"], opened, finished=row.get("finish_reason") != "length")
    return None if found is None else found.text


class Tally:
    """Collects scored rows in any order; keeps of each only what the scores need.

    specs: the rewards; the first decides what is correct (its maximum reached; 1 where it has none). Programs (rows with `tests`, and what
    the `code` reward judges) cannot be compared with each other: no majority vote then.
    passes: ks of pass@k to give beside the powers of two, where there are so many completions.
    decides: whether the first reward tells right from wrong. A reward model does not: pass@1 is null then.
    unscored: rows for which the first reward is null (no answer, or one that cannot be read); they count nothing.
    judged, correct: completions so far.
    """

    def __init__(self, specs: list[RewardSpec], *, decides: bool = True, passes: Collection[int] = ()) -> None:
        self._specs, self._decides, self._passes = specs, decides, passes
        self._comparable = decides and specs[0].name not in ("code", "refusal")
        self._refused = {label: ProblemMeans() for label in (SAFE, UNSAFE)}
        self._problems: dict[Any, dict[int, Judged]] = {}  # id -> sample number -> verdict
        self._means = {spec.name: ProblemMeans() for spec in specs}
        self.models: dict[str, None] = {}
        self.unscored = self.judged = self.correct = 0

    def add(self, row: Row) -> None:
        """Take one scored row. A second row with the same id and sample is an `R1Error` (exit 2)."""
        for name, value in row["rewards"].items():
            if value is not None:
                self._means[name].add(row["id"], value)
        right = row["rewards"].get("refusal")
        if right is not None:
            self._refused[row["label"]].add(row["id"], float((right == 1.0) == (row["label"] == UNSAFE)))
        verdict = row["rewards"][self._specs[0].name] if self._decides else 0.0
        if verdict is None:
            self.unscored += 1
            return
        problem = self._problems.setdefault(row["id"], {})
        number = row.get("sample", len(problem))
        if number in problem:
            where = f"{row.where}: " if row.where else ""
            raise R1Error(
                f"{where}row `{row['id']}`, sample {number} is there twice",
                code=Exit.USAGE,
                hint="give each file once, and rows of one model at a time; `id` must differ between problems",
            )
        maximum = self._specs[0].maximum
        correct = verdict >= (1.0 if maximum is None else maximum)
        self.judged += 1
        self.correct += correct
        reason = row.get("finish_reason")
        self._comparable = self._comparable and not row.get("tests")
        answer = answer_of(row, self._specs[0].name) if self._comparable else None
        problem[number] = (correct, answer, None if reason is None else reason == "length", row.get("num_tokens"))
        if row.get("model") is not None:
            self.models[str(row["model"])] = None

    def scores(self) -> dict[str, Any]:
        """The scores of `metrics.scores.summarise`, and the mean of every reward over problems with its interval (null outside of
        0..1).

        Raises `R1Error` (exit 2) when no row counts.
        """
        problems = [self._problem(judged) for judged in self._problems.values()]
        if not problems:
            why = f"{self.unscored} rows have no answer that can be scored" if self.unscored else "there are no rows"
            raise R1Error(f"nothing to evaluate: {why}", hint="give rows with an `answer`", code=Exit.USAGE)
        scores = summarise(problems, same_answers(), self._passes)
        if not self._decides:
            scores |= {name: None for name in scores if name in ("low", "high") or name.startswith(("pass@", "cons"))}
        scores["rewards"] = {name: means.mean() for name, means in self._means.items() if means.count}
        scores["reward_intervals"] = {name: means.interval() for name, means in self._means.items() if means.count}
        refused = {label: means for label, means in self._refused.items() if means.count}
        if refused:
            scores["refusals"] = {label: _share(means) for label, means in refused.items()}
        return scores

    def sizes(self) -> tuple[int, int]:
        """The smallest and the largest number of completions a problem has."""
        sizes = [len(judged) for judged in self._problems.values()]
        return min(sizes), max(sizes)

    def _problem(self, judged: dict[int, Judged]) -> Problem:
        correct, answers, truncated, tokens = zip(*(judged[number] for number in sorted(judged)), strict=True)
        return Problem(correct=correct, answers=answers if self._comparable else None, truncated=truncated, tokens=tokens)


def _share(means: ProblemMeans) -> dict[str, Any]:
    low, high = means.interval() or (0.0, 1.0)
    return {"samples": means.count, "refused": means.mean(), "low": low, "high": high}


def same_answers() -> Callable[[str, str], bool]:
    """Whether two answers mean the same, told by the bounded comparison of the `math` reward with either as the gold of the other.

    Right and wrong answers are merged by the same rule: were only right ones merged (all equal the gold), votes for a wrong answer in
    two spellings would be split, and cons@k would come out too high. What only sympy could tell counts as different.
    """
    reward = MathReward()

    @lru_cache(maxsize=1 << 16)
    def same(first: str, other: str) -> bool:
        return reward.quick(Row({"id": "", "answer": first, "completion": f"\\boxed{{{other}}}"})) == 1.0

    return same
