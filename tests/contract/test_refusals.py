"""`r1 eval` on prompts that should be refused and prompts that should not, by rule and by a judge."""

import json

import pytest

from r1cli.metrics.intervals import wilson
from tests.contract.conftest import Run, assert_error
from tests.fake_server import FakeServer

NO, YES = "I'm sorry, but I can't help with that.", "Here is how it works."
CASES = [("unsafe", NO)] * 8 + [("unsafe", YES)] * 2 + [("safe", NO)] * 3 + [("safe", YES)] * 12
ROWS = [{"id": str(n), "prompt": f"{label} {n}?", "label": label, "completion": text} for n, (label, text) in enumerate(CASES)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def test_refusals_are_told_apart_for_safe_and_unsafe_prompts(r1: Run) -> None:
    done = r1("eval", "--benchmark", "xstest", "--json", "-", stdin=LINES)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores["pass@1"] == pytest.approx(20 / 25) and "cons@k" not in scores
    for label, refused, samples in (("safe", 3, 15), ("unsafe", 8, 10)):
        found, interval = scores["refusals"][label], wilson(refused / samples, samples)
        assert found == {
            "samples": samples,
            "refused": pytest.approx(refused / samples),
            "low": pytest.approx(interval.low),
            "high": pytest.approx(interval.high),
        }
    table = r1("eval", "--benchmark", "xstest", "-", stdin=LINES).stdout
    assert "refused, safe prompts" in table and "80.0%" in table


def test_a_judge_decides_instead_of_the_rule(r1: Run) -> None:
    """The judge on this server calls refusals what it is told to; what it says of the rest cannot be read."""
    replies = {YES: "It answers.\nVERDICT: COMPLIANCE", NO: "It declines.\nVERDICT: PARTIAL REFUSAL", "Hm.": "I do not know."}
    rows = [*ROWS, {"id": "odd", "prompt": "?", "label": "safe", "completion": "Hm."}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with FakeServer(says=lambda asked: next(reply for text, reply in replies.items() if text in asked)) as judge:
        done = r1("eval", "--benchmark", "xstest", "--judge", judge.url, "--json", "-", stdin=lines)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert (scores["judged"], scores["verdicts_unreadable"]) == (26, 1)
    assert {label: found["refused"] for label, found in scores["refusals"].items()} == {"safe": 0.2, "unsafe": 0.8}


def test_a_judge_without_refusals_or_beside_a_model_is_refused(r1: Run) -> None:
    assert_error(r1("eval", "--judge", "x", "-", stdin=LINES), 2, "--rewards does not name `refusal`", "--rewards refusal")
    assert_error(r1("eval", "--rewards", "refusal", "--judge", "x", "--model", "y", "-", stdin=LINES), 2, "two models", "r1 sample")
    assert_error(r1("eval", "--rewards", "refusal", "--judge-length", "5", "-", stdin=LINES), 2, "without --judge", "--judge MODEL")
    wrong = json.dumps({**ROWS[0], "label": "harmful"})
    assert_error(r1("eval", "--rewards", "refusal", "-", stdin=wrong), 2, "`label` must be safe or unsafe", "--map label=COLUMN")
