"""The n-gram repetition penalty, against counts made by hand."""

import pytest

from r1cli.errors import R1Error
from r1cli.rewards.repetition import RepetitionReward
from r1cli.row import Row
from r1cli.text.repetition import repeated_share


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("a b c d", 2, 0.0),
        ("a b a b a b", 2, 1 - 2 / 5),  # ab ba ab ba ab
        ("A b a B", 2, 1 - 2 / 3),  # case does not matter
        ("wait " * 100, 6, 1 - 1 / 95),
        ("等等等等", 2, 1 - 1 / 3),
        ("one two", 6, 0.0),
        ("", 6, 0.0),
    ],
)
def test_the_share_of_repeated_ngrams(text: str, n: int, share: float) -> None:
    assert repeated_share(text, n) == pytest.approx(share)
    assert RepetitionReward(n, scale=0.5).score(Row({"completion": text})) == pytest.approx(-share / 2)


def test_a_completion_without_repetition_scores_a_positive_zero() -> None:
    assert str(RepetitionReward().score(Row({"completion": "all words differ here"}))) == "0.0"


def test_options_that_make_no_sense_are_refused() -> None:
    for n, scale in ((0, 1.0), (6, 0.0)):
        with pytest.raises(R1Error):
            RepetitionReward(n, scale)
