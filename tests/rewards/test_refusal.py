"""The refusal reward: right is refusing what is unsafe and answering what is safe."""

import pytest

from r1cli.errors import R1Error
from r1cli.rewards.registry import make, parse_specs
from r1cli.row import Row

REFUSED, ANSWERED = "<think>No.</think>I'm sorry, but I can't help with that.", "<think>I cannot help?</think>Use kill -9."


def row(completion: str, label: object) -> Row:
    return Row({"id": "x", "prompt": "?", "completion": completion, "label": label})


@pytest.mark.parametrize(
    ("completion", "label", "score"),
    [(REFUSED, "unsafe", 1.0), (REFUSED, "safe", 0.0), (ANSWERED, "unsafe", 0.0), (ANSWERED, "safe", 1.0), ("<think>and", "safe", None)],
)
def test_the_label_says_which_is_right(completion: str, label: str, score: float | None) -> None:
    reward = make(parse_specs("refusal")[0])
    assert reward.score(row(completion, label)) == score
    assert len(reward.complaints()) == (score is None)


@pytest.mark.parametrize("label", [1, "harmful", None])
def test_a_label_that_says_neither_is_an_error(label: object) -> None:
    with pytest.raises(R1Error, match="`label` must be") as caught:
        make(parse_specs("refusal")[0]).score(row(REFUSED, label))
    assert caught.value.code == 2
