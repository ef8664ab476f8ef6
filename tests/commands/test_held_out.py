"""`--held-out P%`: which rows are kept back."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands.held_out import held_back, held_out_rows
from r1cli.errors import R1Error

PROMPTS = [f"prompt {number % 40}" for number in range(200)]  # five rows each


def kept(held_out: str | None, prompts: list[str] = PROMPTS, seed: int = 0) -> set[str]:
    said: list[str] = []
    back = held_back(SimpleNamespace(held_out=held_out, seed=seed), prompts, said.append)
    names = {prompt for prompt, one in zip(prompts, back, strict=True) if one}
    assert [prompt in names for prompt in prompts] == back  # all rows of a prompt or none
    assert said == ([f"held out: {sum(back)} of {len(prompts)} rows, about {len(names)} of {len(set(prompts))} prompts"] if names else [])
    return names


def test_at_most_the_share_and_whole_prompts() -> None:
    assert [len(kept(share)) for share in ("2.5%", "5%", "7%", "50%", "99%")] == [1, 2, 2, 20, 39]
    assert len(kept("29%", [f"prompt {number}" for number in range(100)])) == 29, "not the 28 of floating point"
    ten = [f"prompt {number}" for number in range(10)]
    assert [len(kept(share, ten)) for share in ("14%", "16%")] == [1, 2], "to the nearest row, as --validation of r1 mix"
    uneven = ["many"] * 90 + [f"one {number}" for number in range(10)]
    assert len(kept("10%", uneven)) == 10 and "many" not in kept("10%", uneven)
    assert kept(None) == kept("a%b.jsonl") == kept("five%") == set()  # files


def test_the_same_ones_for_a_seed_in_whatever_order_the_rows_come() -> None:
    shuffled = random.Random(1).sample(PROMPTS, len(PROMPTS))
    assert kept("20%") == kept("20%", shuffled) != kept("20%", seed=1)


@pytest.mark.parametrize(
    ("share", "prompts", "said"),
    [
        ("1%", PROMPTS, "1% of 200 rows about 40 prompts is not one whole prompt"),
        ("99.9%", PROMPTS, "leaves nothing to train on"),
        ("50%", ["one prompt"] * 200, "50% of 200 rows about 1 prompts is not one whole prompt"),
        ("5%", [], "of 0 rows"),
        ("0%", PROMPTS, "0% is no share of the rows"),
        ("100%", PROMPTS, "100% is no share"),
        ("nan%", PROMPTS, "nan% is no share"),
    ],
)
def test_what_measures_nothing_or_leaves_nothing_is_refused(share: str, prompts: list[str], said: str) -> None:
    with pytest.raises(R1Error, match=said) as caught:
        kept(share, prompts)
    assert caught.value.code == 2 and caught.value.hint


def test_a_command_that_takes_only_a_file_says_so() -> None:
    settings: Any = SimpleNamespace(held_out="2%", held_out_every=0, map=[], skip_bad=False)
    with pytest.raises(R1Error, match="--held-out 2%: here it is a file") as caught:
        held_out_rows(settings, [], lambda reader: iter(reader), str, print)
    assert "--validation" in (caught.value.hint or "")
