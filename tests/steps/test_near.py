"""Near-duplicates: estimates beside exact Jaccard similarity, groups that do not depend on the order."""

import random

import numpy as np
import pytest

from r1cli.steps import near
from r1cli.steps.grams import RowWords, words_of

pytest.importorskip("rensa")
RNG = random.Random(3)
WORDS = [f"w{n}" for n in range(400)]


def text(changed: int = 0, base: str = "") -> str:
    """300 random words, or a text with some of its words changed."""
    words = base.split() or RNG.choices(WORDS, k=300)
    for place in RNG.sample(range(len(words)), changed):
        words[place] = RNG.choice(WORDS) + "x"
    return " ".join(words)


def jaccard(one: str, other: str) -> float:
    sets = [set(zip(*(words_of(text)[k:] for k in range(near.SHINGLE)), strict=False)) for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def sketched(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return near.sketch(RowWords([[text] for text in texts]))


def test_the_estimate_is_the_jaccard_similarity_within_its_standard_error() -> None:
    bases = [text() for _ in range(60)]
    others = [text(changed % 12, base) for changed, base in enumerate(bases)]
    exact = np.array([jaccard(*pair) for pair in zip(bases, others, strict=True)])
    estimated = near.similarity(sketched(bases)[0], sketched(others)[0])
    assert exact.min() < 0.75
    assert exact.max() == 1
    assert np.abs(estimated - exact).max() < 5 * 0.045
    assert abs((estimated - exact).mean()) < 5 * 0.045 / 60**0.5


def groups(texts: list[str], threshold: float = 0.8) -> list[int]:
    sketches, bands, wordless = sketched(texts)
    return near.first_of_alike(sketches, bands, np.arange(len(texts)), threshold, wordless).tolist()


def test_rows_that_are_alike_are_one_group_and_the_lowest_key_stands_for_it() -> None:
    one, two = text(), text()
    texts = [one, two, text(1, one), text(), text(2, two), one]
    assert groups(texts) == [0, 1, 0, 3, 1, 0]
    assert groups(texts, threshold=1.0)[5] == 0
    assert groups([one, text(60, one)]) == [0, 1]


def test_groups_do_not_depend_on_the_order_of_the_rows() -> None:
    texts = [text() for _ in range(20)]
    texts += [text(RNG.randrange(6), base) for base in texts for _ in range(2)]
    names = {base: number for number, base in enumerate(texts)}
    first = groups(texts)
    order = RNG.sample(range(len(texts)), len(texts))
    sketches, bands, wordless = sketched([texts[i] for i in order])
    again = near.first_of_alike(sketches, bands, np.array(order), 0.8, wordless)
    assert [order[leader] for leader in again] == [first[i] for i in order]
    assert len(names) == len(set(texts))


def test_rows_without_words_are_like_no_other() -> None:
    assert groups(["", "...", "", "a", "a"]) == [0, 1, 2, 3, 3]


def test_short_texts_are_compared_as_a_whole() -> None:
    assert groups(["what is this", "what is that", "What is this?"]) == [0, 1, 0]
