r"""The accuracy rewards: is the final answer right, told by rule.

`math` compares the answer a completion commits to with the row's `answer` as mathematics (`rewards/math/`). `accuracy` is what a mixed
data set needs: code for a row with `tests`, choice for one with `choices`, mathematics for every other.

Most answers are told in the caller's process: reading and comparing are bounded there. Only a pair that the grammar does not hold goes to
a worker, to sympy (`rewards/math/symbolic.py`).
"""

from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.rewards import registry
from r1cli.rewards.code.holding import LEVEL, UNSAFE
from r1cli.rewards.math.judge import Judgement, judge
from r1cli.rewards.math.verify import readable
from r1cli.rewards.reward import UNDECIDED, Option, Reward, RewardKind, Score, Undecided
from r1cli.row import Row, require
from r1cli.text.answers import STYLES
from r1cli.text.think import opened_by

STYLE_SETS = {
    "auto": STYLES, "boxed": ("boxed",), "tag": ("tag",), "strict": ("tag",
    "boxed"), "hash": ("hash",), "anchor": ("anchor",), "last": ("last",),
}  # fmt: skip


class MathReward(Reward):
    """1.0 when the answer equals the gold (one of the golds, when `answer` is a list), else 0.0; None when `answer` is null or
    unreadable.
    """

    name = "math"
    isolated = True

    def __init__(self, style: str = "auto") -> None:
        self.style = style
        self.unreadable = 0
        self.first_unreadable = ""

    def quick(self, row: Row) -> Score | Undecided:
        completion = require(row, "completion", str)
        answer = require(row, "answer", str, int, float, list, type(None))
        if answer is None:
            return None
        judgements = self._judgements(completion, answer, row)
        if any(j.verdict is True and readable(j.gold) for j in judgements):
            return 1.0
        if any(j.verdict is None or (not readable(j.gold) and j.gold.key) for j in judgements):
            return UNDECIDED
        score = 0.0 if any(readable(j.gold) for j in judgements) else None
        self.settled(row, score)
        return score

    def prepare(self) -> None:
        from r1cli.rewards.math.symbolic import warm_up

        warm_up()

    def score(self, row: Row) -> Score:
        score = self.quick(row)
        if not isinstance(score, Undecided):
            return score
        from r1cli.rewards.math.symbolic import readable_by_sympy, same_by_sympy

        known = False
        for judged in self._judgements(row["completion"], row["answer"], row):
            known = known or readable(judged.gold) or readable_by_sympy(judged.gold.text)
            if judged.answer is not None and judged.verdict is not False and same_by_sympy(judged.gold.text, judged.answer.text):
                return 1.0
        return 0.0 if known else None

    def _judgements(self, completion: str, answer: Any, row: Row) -> list[Judgement]:
        golds = answer if isinstance(answer, list) else [answer]
        style = row.get("answer_style", self.style)
        if style not in STYLE_SETS:
            where = f"{row.where}: " if row.where else ""
            raise R1Error(
                f"{where}row `{row.get('id')}`: `answer_style` cannot be `{style}`",
                hint=nearest(str(style), STYLE_SETS),
                code=Exit.USAGE,
            )
        opened, finished = opened_by(row.get("think_prefix")), row.get("finish_reason") != "length"
        return [judge(completion, gold, opened, STYLE_SETS[style], finished) for gold in golds]

    def settled(self, row: Row, score: Score) -> None:
        if score is None and row["answer"] is not None:
            self.unreadable += 1
            self.first_unreadable = self.first_unreadable or f"row `{row.get('id', '?')}`: `{str(row['answer'])[-60:]}`"

    def complaints(self) -> list[str]:
        if not self.unreadable:
            return []
        return [f"{self.unreadable} rows have an `answer` that cannot be read and count nothing ({self.first_unreadable}); see `r1 check`"]


class AccuracyReward(Reward):
    """The accuracy of a row by its kind: `code` when it has `tests`, `choice` when it has `choices`, else `math`."""

    name = "accuracy"
    isolated = True

    def __init__(self, style: str = "auto", **held: Any) -> None:
        self.math = MathReward(style)
        self._held = held
        self._others: dict[str, Reward] = {}

    def quick(self, row: Row) -> Score | Undecided:
        return self._reward_for(row).quick(row)

    def prepare(self) -> None:
        self.math.prepare()

    def score(self, row: Row) -> Score:
        return self._reward_for(row).score(row)

    def time_for(self, row: Row) -> float:
        return self._reward_for(row).time_for(row)

    def settled(self, row: Row, score: Score) -> None:
        self._reward_for(row).settled(row, score)

    def complaints(self) -> list[str]:
        return [line for reward in (self.math, *self._others.values()) for line in reward.complaints()]

    def _reward_for(self, row: Row) -> Reward:
        name = "code" if row.get("tests") else "choice" if row.get("choices") else "math"
        if name == "math":
            return self.math
        if name not in self._others:
            kind = registry.kind_of(name)
            known = {option.name: option.default for option in kind.options}
            self._others[name] = kind.make(known | {key: value for key, value in self._held.items() if key in known})
        return self._others[name]


STYLE_OPTION = Option(
    "style", str, "auto",
    "where the answer may stand: auto (all of them), strict (tag or boxed), tag, boxed, hash (####), anchor (the answer is), "
    "last (last number); a row's `answer_style` overrides it", tuple(STYLE_SETS),
)  # fmt: skip
MATH = RewardKind(
    name="math",
    summary="the answer the completion commits to equals the row's `answer` as mathematics",
    formula="1 if the last committed answer = answer (value, set, interval, equation, words, ...), else 0; null if answer is null",
    example="math=boxed",
    make=lambda options: MathReward(options["style"]),
    fields=("completion", "answer", "answer_style?", "think_prefix?", "finish_reason?"),
    options=(STYLE_OPTION,),
    mode="style",
)
ACCURACY = RewardKind(
    name="accuracy",
    summary="the answer is right: code for a row with `tests`, choice for one with `choices`, else math",
    formula="1 if right, else 0; null if there is nothing to judge by",
    example="accuracy,format=0.5",
    make=lambda options: AccuracyReward(options["style"], level=options["level"], unsafe=options["unsafe"]),
    fields=("completion", "answer", "tests?", "choices?", "answer_style?", "think_prefix?", "finish_reason?"),
    options=(STYLE_OPTION, LEVEL, UNSAFE),
    mode="style",
)
