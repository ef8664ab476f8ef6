"""Views, scores and running normalisation of preference rewards, with a model that is a function."""

import math
import statistics
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.rewards.model_spec import parse_models
from r1cli.rewards.preference import PreferenceReward, Running, sigmoid, viewed
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.scorer import Scorer
from r1cli.row import Row
from r1cli.text.reply import Conversation


class Length:
    """A reward model whose logit is the length of what it sees; `asked` are its batches."""

    def __init__(self, logit: Callable[[str], float | None] = lambda text: float(len(text))) -> None:
        self.logit = logit
        self.asked: list[list[str]] = []
        self.threads: set[str] = set()

    def score(self, conversations: Sequence[Conversation]) -> list[float | None]:
        self.asked.append([reply for _, reply in conversations])
        self.threads.add(threading.current_thread().name)
        return [self.logit(reply) for _, reply in conversations]


def reward(entry: str, model: Length) -> tuple:
    [spec] = parse_models([entry])
    return spec.reward(), PreferenceReward(spec, model)


def row(completion: str, **fields: object) -> Row:
    return Row({"id": completion[:8], "prompt": "Hi", "completion": completion, **fields})


def scored(entry: str, rows: list[Row], model: Length | None = None, rules: str = "") -> list[Row]:
    with Scorer(parse_specs(rules) if rules else [], workers=1, models=[reward(entry, model or Length())]) as scorer:
        return list(scorer.score(rows))


@pytest.mark.parametrize(
    ("completion", "prefix", "summary", "full"),
    [
        ("<think>a</think>\n\nThe end. ", None, "The end.", "<think>a</think>\n\nThe end. "),
        ("a</think>b", "<think>\n", "b", "<think>\na</think>b"),
        ("<think>never closed", None, None, "<think>never closed"),
        ("never closed", "<think>\n", None, "<think>\nnever closed"),
        ("<think>a</think>  \n", None, None, "<think>a</think>  \n"),
        ("<think>a</think>b<think>again", None, None, "<think>a</think>b<think>again"),
        ("no reasoning at all", None, None, "no reasoning at all"),
    ],
)
def test_the_summary_is_what_follows_the_reasoning(completion: str, prefix: str | None, summary: str | None, full: str) -> None:
    given = row(completion, think_prefix=prefix)
    assert viewed(given, "summary") == summary
    assert viewed(given, "full") == full


def test_a_response_without_reasoning_is_its_own_summary_only_when_asked() -> None:
    assert viewed(row("plain"), "summary", whole=True) == "plain"
    assert viewed(row("<think>open"), "summary", whole=True) is None
    assert viewed(row("open", think_prefix="<think>"), "summary", whole=True) is None


def test_no_summary_has_a_defined_score_that_is_counted_and_said() -> None:
    rows = [row("<think>a</think>ok"), row("<think>never")]
    model = Length()
    spec = reward("helpful=rm:view=summary:no_summary=0.25:weight=2", model)
    with Scorer(parse_specs("format"), workers=1, models=[spec]) as scorer:
        first, second = scorer.score(rows)
        warned = scorer.warnings()
    assert model.asked == [["ok"]]
    assert first["rewards"] == {"format": 1.0, "helpful": sigmoid(2)}
    assert first["reward"] == pytest.approx(1 + 2 * sigmoid(2))
    assert second["rewards"] == {"format": 0.0, "helpful": 0.25} and second["reward"] == 0.5
    assert warned == ["1 completions have no summary after </think>: `helpful` is 0.25 for them"]


def test_too_long_has_a_defined_score_or_stops() -> None:
    model = Length(lambda text: None if len(text) > 3 else 0.0)
    rows = [row("abc"), row("abcdef")]
    spec = reward("h=rm:too_long=0.1", model)
    with Scorer([], workers=1, models=[spec]) as scorer:
        assert [r["rewards"]["h"] for r in scorer.score(rows)] == [0.5, 0.1]
        assert scorer.warnings() == ["1 completions do not fit the context of `h`: it is 0.1 for them"]
    with pytest.raises(R1Error, match="row `abcdef` does not fit the context of reward model `h`"):
        scored("h=rm:too_long=error", rows, model)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_stops_and_names_the_row(logit: float) -> None:
    with pytest.raises(R1Error, match=f"reward model `h` gave {logit} for row `bad`") as caught:
        scored("h=rm", [row("good"), row("bad")], Length(lambda text: logit if text == "bad" else 1.0))
    assert caught.value.code == 1 and "float32" in (caught.value.hint or "")


def test_a_broken_model_is_an_error_of_its_own_kind() -> None:
    def broken(text: str) -> float:
        raise RuntimeError("CUDA error")

    with pytest.raises(RuntimeError, match="CUDA error"):
        scored("h=rm", [row("a")], Length(broken))


def test_rewards_are_for_the_sets_they_name_and_null_elsewhere() -> None:
    rows = [row("<think>a</think>2", set="reasoning", answer="2"), row("<think>a</think>hi", set="helpful"), row("<think>a</think>x")]
    model = Length()
    found = scored("helpful=rm:view=summary:set=helpful", rows, model, "accuracy:set=reasoning,format")
    assert [r["rewards"] for r in found] == [
        {"accuracy": 1.0, "format": 1.0, "helpful": None},
        {"accuracy": None, "format": 1.0, "helpful": sigmoid(2)},
        {"accuracy": None, "format": 1.0, "helpful": None},
    ]
    assert [r["reward"] for r in found] == pytest.approx([2.0, 1 + sigmoid(2), 1.0])
    assert model.asked == [["hi"]]
    with pytest.raises(R1Error, match="`set` must be string"):
        scored("helpful=rm:set=helpful", [row("a", set=3)])


def test_rows_are_scored_in_batches_off_the_calling_thread_and_come_out_in_order() -> None:
    model = Length()
    rows = [row(f"{number:03}" + "x" * (number % 7)) for number in range(700)]
    found = scored("h=rm", rows, model)
    assert [r["completion"] for r in found] == [r["completion"] for r in rows]
    assert [r["rewards"]["h"] for r in found] == [sigmoid(len(r["completion"])) for r in rows]
    assert max(map(len, model.asked)) == 256 and sum(map(len, model.asked)) == 700
    assert model.threads == {"reward-models"}


@given(st.lists(st.lists(st.floats(-1e3, 1e3), max_size=6), min_size=1, max_size=5))
def test_running_statistics_are_those_of_all_that_was_seen(batches: list[list[float]]) -> None:
    running, everything = Running(), [x for batch in batches for x in batch]
    for batch in batches:
        running.add(batch)
    if not everything:
        assert running.score(3.0) == 0.5
        return
    mean, spread = statistics.fmean(everything), statistics.pstdev(everything)
    assert running.mean == pytest.approx(mean, abs=1e-9)
    assert math.sqrt(running.squares / running.count) == pytest.approx(spread, abs=1e-6)


def test_running_scores_do_not_depend_on_the_scale_of_the_model() -> None:
    small, large = Running(), Running()
    small.add([1.0, 2.0, 3.0])
    large.add([1000.0, 2000.0, 3000.0])
    assert small.score(2.0) == large.score(2000.0) == 0.5
    assert small.score(3.0) == pytest.approx(large.score(3000.0)) == pytest.approx(sigmoid(1 / math.sqrt(2 / 3)))


@given(st.floats(-1e6, 1e6))
def test_sigmoid_never_overflows(logit: float) -> None:
    assert 0 <= sigmoid(logit) <= 1
    assert sigmoid(logit) + sigmoid(-logit) == pytest.approx(1)
