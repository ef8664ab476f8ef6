"""Whether every row has what the rewards read of it, found before anything is sampled: golds that can be compared with, options that are
named, tests that can be read, languages that are known. Nothing is run for it, and no completion is needed.

A row that declares that there is nothing to judge (`answer` or `tests` null) is sound: rewards are null for it, as they are in a run.
"""

import dataclasses
from collections.abc import Sequence

from r1cli.commands.preflight import FAIL, OK, Finding, places
from r1cli.errors import R1Error
from r1cli.rewards import registry
from r1cli.rewards.audit import GoldAudit, audit_golds
from r1cli.rewards.reward import RewardSpec
from r1cli.rewards.sets import applies
from r1cli.row import Row

COMPARING = ("accuracy", "math")  # what reads `answer` as a gold of mathematics, for a row without tests and choices
DRAWN = ("completion", "finish_reason", "num_tokens", "think_prefix")  # what a completion brings; all else is the prompt row's
GOLDS_FIX = "mend these rows, take another column with --map answer=COLUMN, or set their `answer` to null"
MOST = 5  # rows that are named with their reason


@dataclasses.dataclass(frozen=True)
class RowCheck:
    """golds: the finding about golds, if any is compared with. fields: those about what else rewards read, one a reward. sound: the rows
    that nothing was found against."""

    golds: list[Finding]
    fields: list[Finding]
    sound: list[Row]

    @property
    def findings(self) -> list[Finding]:
        return [*self.golds, *self.fields]


def check_rows(specs: Sequence[RewardSpec], rows: Sequence[Row], timeout: float, about: str = "") -> RowCheck:
    """Look at every row for every reward of r1's own that applies to it. about: what the findings call the rows, "" for the input."""
    golds = rows_with_golds(specs, rows)
    audit = audit_golds(golds, timeout=timeout) if golds else GoldAudit()
    unsound = {(problem.row_id, problem.where) for problem in audit.problems}
    bad = {id(row) for row in golds if (row.get("id"), row.where) in unsound}
    fields: list[Finding] = []
    said: set[tuple[int, str]] = set()
    for spec in specs:
        if ":" in spec.source:
            continue  # a user's own: what it reads, only running it would tell
        asked = [row for row in rows if applies(spec.sets, row) and not (id(row) in bad and _judge(spec) in COMPARING)]
        errors = [(row, error) for row, error in _errors(spec, asked) if (id(row), error.message) not in said]
        said |= {(id(row), error.message) for row, error in errors}
        fields += _field_finding(spec, len(asked), errors)
    wrong = bad | {place for place, _ in said}
    sound = [row for row in rows if id(row) not in wrong]
    return RowCheck(_about(about, _gold_finding(audit)), _about(about, fields), sound)


def _about(what: str, findings: list[Finding]) -> list[Finding]:
    return [dataclasses.replace(finding, name=f"{what}: {finding.name}") for finding in findings] if what else findings


def rows_with_golds(specs: Sequence[RewardSpec], rows: Sequence[Row]) -> list[Row]:
    """The rows whose `answer` one of these rewards compares with, by itself or by the reward that it asks (`length`, `brevity`)."""
    comparing = [spec for spec in specs if _judge(spec) in COMPARING]
    return [row for row in rows if any(applies(spec.sets, row) for spec in comparing)]


def _judge(spec: RewardSpec) -> str:
    """The reward that tells right from wrong for this one: itself, or what its option `by` names."""
    return str(spec.options.get("by", spec.source or spec.name))


def _gold_finding(audit: GoldAudit) -> list[Finding]:
    if audit.problems:
        return [Finding("gold answers", FAIL, "; ".join(audit.lines()), GOLDS_FIX)]
    if not audit.rows:
        return []
    note = f", {audit.null} declared null" if audit.null else ""
    return [Finding("gold answers", OK, f"all {audit.rows} can be compared with{note}; an answer that repeats its gold is scored 1")]


def _errors(spec: RewardSpec, rows: Sequence[Row]) -> list[tuple[Row, R1Error]]:
    reward = registry.make(spec)
    found = []
    for row in rows:
        try:
            reward.examine(row)
        except R1Error as error:
            found.append((row, error))
    return found


def _field_finding(spec: RewardSpec, count: int, errors: Sequence[tuple[Row, R1Error]]) -> list[Finding]:
    """The finding about one reward: [] for one that reads nothing of a prompt row, and where its golds are all that there is to say."""
    name = f"rows for {spec.name}"
    if errors:
        shown = "; ".join(error.message for _, error in errors[:MOST])
        more = f"; also {places([row for row, _ in errors[MOST:]], 200)}" if len(errors) > MOST else ""
        text = f"{len(errors)} of {count} rows cannot be scored by `{spec.name}`: {shown}{more}"
        return [Finding(name, FAIL, text, _fix(spec, errors[0][1]))]
    reads = [field for field in registry.kind_of(spec.source).fields if field.rstrip("?") not in DRAWN]
    if not reads or not count or _judge(spec) in COMPARING:
        return []
    return [Finding(name, OK, f"all {count} can be scored")]


def _fix(spec: RewardSpec, error: R1Error) -> str:
    null = {"choice": "answer", "code": "tests"}.get(_judge(spec))
    return (error.hint or "mend these rows") + (f"; `{null}` null declares that there is nothing to judge" if null else "")
