r"""Audit the golds of a data set: is there, for every row, something a rule can compare an answer with.

    audit_golds(rows).problems        what `r1 check` reports, with row ids

A gold is sound when an answer that repeats it is scored 1. That covers what cannot be read at all (an empty gold, broken LaTeX, a text that
is neither words nor mathematics), what equals nothing (0/0), a choice that names no option, and code without tests.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from r1cli.errors import R1Error
from r1cli.rewards.math.judge import problem_of
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row, likely_column
from r1cli.text.choices import gold_of as choice_gold
from r1cli.text.choices import options_of

MOST_IDS = 200  # of rows that are named without their reason


@dataclass(frozen=True, slots=True)
class GoldProblem:
    """One gold that cannot be compared with."""

    row_id: Any
    where: str
    answer: str
    reason: str


@dataclass(slots=True)
class GoldAudit:
    """What an audit found. rows: read; null: rows whose answer is declared null; kinds: how many golds of each kind were looked at."""

    rows: int = 0
    null: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    problems: list[GoldProblem] = field(default_factory=list)

    def lines(self, most: int = 5) -> list[str]:
        """Sentences for people: the count, the first problems by row with their reasons, and the ids of the rows after them."""
        if not self.problems:
            return []
        shown = [f"row `{p.row_id}`{f' ({p.where})' if p.where else ''}: {p.reason}" for p in self.problems[:most]]
        ids = [f"`{p.row_id}`" for p in self.problems[most : most + MOST_IDS]]
        more = ["also rows " + ", ".join(ids)] if ids else []
        more += [f"... and {len(self.problems) - most - MOST_IDS} more"] if len(self.problems) > most + MOST_IDS else []
        return [f"{len(self.problems)} of {self.rows} rows have a gold that cannot be compared with", *shown, *more]


def audit_golds(rows: Iterable[Row], workers: int = 1, timeout: float = 5.0) -> GoldAudit:
    """Audit every row once. A missing field is a problem of its row, not an error of the audit."""
    audit = GoldAudit()
    with Scorer(parse_specs("math"), workers, timeout) as scorer:
        for row in scorer.score(_examined(rows, audit)):
            answer, score = row["answer"], row["rewards"]["math"]
            if score == 1.0:
                continue
            texts = answer if isinstance(answer, list) else [answer]
            reason = next((r for r in map(problem_of, texts) if r), None) or f"`{str(texts[0])[:80]}` is not equal to itself"
            audit.problems.append(GoldProblem(row.get("id"), row.where, str(answer), reason))
    return audit


def _examined(rows: Iterable[Row], audit: GoldAudit) -> Iterable[Row]:
    """The rows whose gold is mathematics, each completed with its own gold as the answer; the others are judged here."""
    for row in rows:
        audit.rows += 1
        kind = "code" if row.get("tests") else "choice" if row.get("choices") else "math"
        audit.kinds[kind] = audit.kinds.get(kind, 0) + 1
        if kind == "code":
            continue
        answer = row.get("answer")
        if "answer" not in row:
            column = likely_column(row, "answer") if not audit.problems else None  # said once
            other = f" (is it `{column}`? --map answer={column})" if column else ""
            audit.problems.append(GoldProblem(row.get("id"), row.where, "", f"it has no field `answer`, only {', '.join(row)}{other}"))
        elif answer is None:
            audit.null += 1
        elif kind == "choice":
            _examine_choice(row, audit)
        elif not isinstance(answer, str | int | float | list) or answer == []:
            audit.problems.append(GoldProblem(row.get("id"), row.where, str(answer), f"`answer` is {type(answer).__name__}, not text"))
        else:
            gold = answer[0] if isinstance(answer, list) else answer
            repeated = gold if isinstance(gold, str) and ("\\boxed" in gold or "####" in gold or len(gold) > 200) else f"\\boxed{{{gold}}}"
            yield row.with_fields(completion=repeated, think_prefix=None, finish_reason="stop", answer_style="auto")


def _examine_choice(row: Row, audit: GoldAudit) -> None:
    try:
        choice_gold(row, options_of(row))
    except R1Error as error:
        audit.problems.append(
            GoldProblem(row.get("id"), row.where, str(row["answer"]), error.message.rpartition(f"row `{row.get('id')}`: ")[2])
        )
