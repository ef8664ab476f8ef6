"""Users' own functions: every way to write one, and every mistake."""

from pathlib import Path

import pytest

from r1cli.errors import R1Error
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.rewards.user import check_columns
from r1cli.row import Row

FILE = str(Path(__file__).with_name("user_rewards.py"))
ROWS = [
    Row({"id": i, "prompt": "p", "completion": c, "answer": a})
    for i, (c, a) in enumerate([("please", "please"), ("no", "yes"), ("x", None)])
]


def rewards(functions: str, rows: list[Row] = ROWS, timeout: float = 20.0) -> list[Row]:
    with Scorer(parse_specs(",".join(f"{FILE}:{f}" for f in functions.split(","))), workers=1, timeout=timeout) as scorer:
        return list(scorer.score(rows))


def test_every_style_in_one_run() -> None:
    rows = rewards("polite,lengths=0.5,trl_exact,waits_together,constant")
    assert [row["rewards"]["polite"] for row in rows] == [1.0, 0.0, 0.0]
    assert [row["rewards"]["lengths"] for row in rows] == [6.0, 2.0, 1.0]
    assert [row["rewards"]["trl_exact"] for row in rows] == [1.0, 0.0, None]
    assert [row["rewards"]["waits_together"] for row in rows] == [1.0, 1.0, 1.0]
    assert [row["reward"] for row in rows] == [1 + 3 + 1 + 1 + 0.25, 0 + 1 + 0 + 1 + 0.25, 0 + 0.5 + 1 + 0.25]


def test_trl_conversations() -> None:
    rows = [Row({"id": 1, "prompt": [{"role": "user", "content": "hello"}], "completion": "hi"})]
    assert rewards("trl_chat", rows)[0]["reward"] == 1.0


def test_async_rows_wait_together_and_only_the_late_one_loses() -> None:
    rows = [Row({"id": i, "completion": c}) for i, c in enumerate(["a", "late", "b"])]
    with Scorer(parse_specs(f"{FILE}:waits"), workers=1, timeout=1.0) as scorer:
        assert [row["reward"] for row in scorer.score(rows)] == [1.0, 0.0, 1.0]
        assert (scorer.timeouts, scorer.crashes) == (1, 0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("too_few", "gave 1 values for 3 rows"),
        ("unclear", "parameters that are not understood"),
        ("other_column", "asks for the column `hardness`"),
        ("nothing", "has no function `nothing`"),
    ],
)
def test_mistakes_are_named(function: str, message: str) -> None:
    with pytest.raises(R1Error, match=message):
        rewards(function)


@pytest.mark.parametrize(("todo", "message"), [("text", "gave 'one'"), ("nan", "gave nan"), ("raise", "ValueError: on purpose")])
def test_a_bad_value_or_an_exception_stops_the_run_and_names_the_row(todo: str, message: str) -> None:
    rows = [Row({"id": "fine", "completion": "x"}), Row({"id": "r7", "completion": todo})]
    with Scorer(parse_specs(f"{FILE}:misbehaves"), workers=1) as scorer:
        scored = scorer.score(rows)
        assert next(scored)["reward"] == 1.0  # what was done before comes out
        with pytest.raises(R1Error, match=message) as error:
            next(scored)
    assert "r7" in error.value.message


def test_weighted_rewards_that_add_up_to_no_number_are_named(tmp_path: Path) -> None:
    file = tmp_path / "huge.py"
    file.write_text("def huge(row):\n    return 1e308\n")
    with Scorer(parse_specs(f"{file}:huge=10"), workers=1) as scorer, pytest.raises(R1Error, match="of row `r7` add up to inf") as error:
        next(scorer.score([Row({"id": "r7", "completion": "x"})]))
    assert error.value.hint and "lower the weights" in error.value.hint


def test_a_function_is_not_imported_where_the_model_lives(tmp_path: Path) -> None:
    file = tmp_path / "heavy.py"
    file.write_text("import os\nPID = os.getpid()\ndef pid(row):\n    return PID\n")
    with Scorer(parse_specs(f"{file}:pid"), workers=1) as scorer:
        (row,) = scorer.score([Row({"completion": "x"})])
        assert [int(row["reward"])] == scorer._pool.pids()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def f(row:\n", "is not Python"),
        ("import nowhere_to_be_found\ndef f(row): return 1\n", "nowhere_to_be_found"),
        ("f = 3\n", "is not a function"),
    ],
)
def test_a_broken_file_is_said_before_any_row_is_scored(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(content)
    with pytest.raises(R1Error, match=message) as error:
        Scorer(parse_specs(f"{file}:f"))
    assert error.value.code == 2


def test_the_tokens_of_completions_are_passed_where_rows_have_them(tmp_path: Path) -> None:
    file = tmp_path / "trl.py"
    file.write_text("def count(completions, completion_ids, **columns): return [float(len(ids)) for ids in completion_ids]\n")
    (spec,) = parse_specs(f"{file}:count")
    row = Row({"id": 1, "completion": "x", "token_ids": [5, 6, 7]})
    with Scorer([spec], workers=1, timeout=60) as scorer:
        assert [scored["reward"] for scored in scorer.score([row])] == [3.0]
        with pytest.raises(R1Error, match="asks for `completion_ids`, which TRL's trainer passes and r1 does not here") as error:
            list(scorer.score([Row({"id": 1, "completion": "x"})]))
    assert error.value.code == 2 and "--map" not in (error.value.hint or "")
    check_columns(spec.source, ["prompt", "token_ids"])
    with pytest.raises(R1Error, match="does not here"):  # as before a run of `r1 grpo`
        check_columns(spec.source, ["prompt", "answer"])


def test_what_belongs_to_the_trainer_of_trl_is_not_passed(tmp_path: Path) -> None:
    file = tmp_path / "trl.py"
    file.write_text("def f(completions, trainer_state): return [1.0]\ndef g(completions, trainer_state=None): return [1.0]\n")
    with pytest.raises(R1Error, match="asks for `trainer_state`, which TRL's trainer passes and r1 does not") as error:
        check_columns(f"{file}:f", [])
    assert "trainer_state=None" in (error.value.hint or "")
    check_columns(f"{file}:g", [])


def test_a_missing_file() -> None:
    with pytest.raises(R1Error, match="does not exist"):
        Scorer(parse_specs("nowhere/rewards.py:f"))
