"""`--min SCORE=VALUE`: what an evaluation cannot give is refused before it, and what its rows do not give is said as it is."""

import pytest

from r1cli.commands.floors import check_floor, floor_of
from r1cli.errors import R1Error
from r1cli.metrics.scores import Problem, passes_of, summarise
from r1cli.rewards.registry import parse_specs

SPECS = parse_specs("accuracy,format")


@pytest.mark.parametrize(("name", "k"), [("pass@3", 3), ("pass@16", 16), ("pass@0", None), ("pass@", None), ("pass@x", None), ("3", None)])
def test_the_k_of_a_name(name: str, k: int | None) -> None:
    assert passes_of(name) == k


@pytest.mark.parametrize(
    "text", ["pass@1=0.5", "low=0", "pass@3=0.1", "pass@4=1", "cons@k=0.5", "cons_low=0.5", "accuracy=0.5", "format=-1"]
)
@pytest.mark.parametrize("k", [4, None])
def test_what_four_completions_give_may_be_asked_for(text: str, k: int | None) -> None:
    name, floor = floor_of(text, SPECS, k)
    assert f"{name}={floor:g}" == text


@pytest.mark.parametrize(
    ("text", "k", "what", "hint"),
    [
        ("pass@8=0.1", 4, "with 4 completions a problem there is no `pass@8`", "-k 8"),
        ("cons@k=0.1", 1, "with 1 completions a problem there is no `cons@k`", "-k 2"),
        ("cons_low=0.1", 1, "there is no `cons_low`", "-k 2"),
        ("pass@0=0.1", None, "there is no score `pass@0`", "pass@1"),
        ("acuracy=0.1", None, "there is no score `acuracy`", "accuracy"),
        ("pass@1", None, "is not a score and a number", "--min pass@1=0.5"),
        ("pass@1=nan", None, "is not a score and a number", "--min pass@1=0.5"),  # below which no score would be
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(text: str, k: int | None, what: str, hint: str) -> None:
    with pytest.raises(R1Error, match=what) as caught:
        floor_of(text, SPECS, k)
    assert caught.value.code == 2 and hint in str(caught.value.hint)


@pytest.mark.parametrize("text", ["pass@1=0.5", "pass@2=0.5", "low=0.5", "cons@k=0.5"])
def test_without_a_rule_nothing_is_right_or_wrong(text: str) -> None:
    with pytest.raises(R1Error, match="no rule tells right from wrong here") as caught:
        floor_of(text, SPECS, 4, decides=False)
    assert "--min accuracy=0.5" in str(caught.value.hint)
    assert floor_of("format=0.5", SPECS, 4, decides=False) == ("format", 0.5)


def test_what_the_rows_do_not_give_is_said_with_what_they_have() -> None:
    problem = Problem(correct=[True, False, False], answers=None, truncated=[None] * 3, tokens=[None] * 3)
    scores = summarise([problem], passes=[3, 4]) | {"rewards": {"accuracy": 1 / 3}}
    assert scores["pass@3"] == 1.0 and "pass@4" not in scores
    check_floor(scores, "pass@3", 0.9)
    for name, what in (
        ("pass@4", "a problem has 3 completions only, so there is no `pass@4`"),
        ("cons@k", "answers of this kind cannot be compared with each other, so there is no `cons@k`"),
        ("format", "no row has a value for it, so there is no `format`"),
    ):
        with pytest.raises(R1Error, match=what) as caught:
            check_floor(scores, name, 0.1)
        assert caught.value.code == 2
    with pytest.raises(R1Error, match=r"accuracy is 0\.3333, below 0\.5") as caught:
        check_floor(scores, "accuracy", 0.5)
    assert caught.value.code == 1
