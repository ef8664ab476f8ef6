"""Mixtures: counts by hand, the same bytes for every order of the input; duplicates and benchmark overlaps."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.row import Row, dump
from r1cli.steps.decontaminate import Benchmark, decontaminate_rows, words_of
from r1cli.steps.dedupe import dedupe_rows
from r1cli.steps.keep import Dropped
from r1cli.steps.mix import Mixture, Part, allot, check_parts, part_of


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a.jsonl", Part("a.jsonl")),
        ("a.jsonl:100", Part("a.jsonl", count=100)),
        ("a.jsonl=0.3", Part("a.jsonl", weight=0.3)),
        ("-", Part("-")),
        ("hf:./d:train", Part("hf:./d:train")),
        ("hf:./d:train:7", Part("hf:./d:train", count=7)),
        ("hf:org/n@v1:train=2", Part("hf:org/n@v1:train", weight=2.0)),
        ("k=v/a.jsonl", Part("k=v/a.jsonl")),
        ("a=1.jsonl", Part("a=1.jsonl")),
    ],
)
def test_reading_a_part(text: str, part: Part) -> None:
    assert part_of(text) == part


@pytest.mark.parametrize("text", ["a.jsonl=x", "a.jsonl=-1", "a.jsonl="])
def test_a_weight_is_a_number(text: str) -> None:
    with pytest.raises(R1Error, match="the weight must be a number"):
        part_of(text)


def weighted(*weights: float) -> list[Part]:
    return [Part(f"p{n}", weight=weight) for n, weight in enumerate(weights)]


@pytest.mark.parametrize(
    ("parts", "available", "total", "counts"),
    [
        ([Part("a"), Part("b", count=3)], [5, 9], None, [5, 3]),
        (weighted(0.7, 0.3), [100, 100], 10, [7, 3]),
        (weighted(1, 1, 1), [9, 9, 9], 10, [4, 3, 3]),  # the largest remainder, the first of equal ones
        (weighted(0.7, 0.3), [100, 30], None, [70, 30]),
        (weighted(0.7, 0.3), [7, 100], None, [7, 3]),
        (weighted(1, 0), [10, 10], None, [10, 0]),
        ([Part("a"), *weighted(1, 3)], [4, 100, 100], 12, [4, 2, 6]),
        (weighted(0.5), [0], None, [0]),
    ],
)
def test_counts_by_hand(parts: list[Part], available: list[int], total: int | None, counts: list[int]) -> None:
    check_parts(parts, total)
    assert allot(parts, available, total) == counts


@pytest.mark.parametrize(
    ("parts", "available", "total", "message"),
    [
        ([Part("a", count=6)], [5], None, "`a` has 5 rows to give, 6 are asked for"),
        (weighted(1, 1), [10, 3], 10, "`p1` has 3 rows to give, 5 are asked for"),
        ([Part("a"), *weighted(1)], [20, 5], 10, "--total is 10, but the sources without a weight alone give 20"),
    ],
)
def test_too_few_rows_are_never_made_up_for(parts: list[Part], available: list[int], total: int | None, message: str) -> None:
    with pytest.raises(R1Error, match=message) as caught:
        allot(parts, available, total)
    assert caught.value.code == 2


def test_weights_and_totals_must_make_sense_together() -> None:
    with pytest.raises(R1Error, match="all weights are 0"):
        check_parts(weighted(0, 0), None)
    with pytest.raises(R1Error, match="`--total` needs weights"):
        check_parts([Part("a"), Part("b", count=3)], 10)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 1000))
def test_weights_share_the_total_exactly_and_fairly(weights: list[float], total: int) -> None:
    counts = allot(weighted(*weights), [10**6] * len(weights), total)
    assert sum(counts) == total
    assert all(abs(count - total * weight / sum(weights)) < 1 + 1e-6 for count, weight in zip(counts, weights, strict=True))


def mixed(parts: list[list[Row]], counts: list[int] | None = None, seed: int = 0, shuffle: bool = True) -> list[str]:
    with Mixture(len(parts), seed) as mixture:
        for index, rows in enumerate(parts):
            mixture.add(index, rows)
        return [dump(row) for row in mixture.rows(counts or mixture.available, shuffle)]


ROWS = [Row({"id": n, "x": "é\u2028"}) for n in range(50)]


@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_and_of_sources_does_not_matter(rng: random.Random) -> None:
    one, two = ROWS[:20], ROWS[20:]
    first = mixed([one, two], [7, 9])
    again = mixed([rng.sample(two, 30), rng.sample(one, 20)], [9, 7])
    assert first == again
    assert len(set(first)) == 16


def test_a_shuffle_is_a_permutation_that_the_seed_decides() -> None:
    lines = [dump(row) for row in ROWS]
    assert sorted(mixed([ROWS])) == sorted(lines)
    assert mixed([ROWS]) != lines
    assert mixed([ROWS], seed=1) != mixed([ROWS], seed=2)
    assert mixed([ROWS[:3], ROWS[3:]], shuffle=False) == lines
    drawn = mixed([ROWS], [10], shuffle=False)
    assert drawn == [line for line in lines if line in drawn]


def test_every_row_is_drawn_equally_often() -> None:
    counts = Counter(line for seed in range(500) for line in mixed([ROWS[:10]], [3], seed=seed))
    assert all(abs(counts[dump(row)] - 150) < 5 * (500 * 0.3 * 0.7) ** 0.5 for row in ROWS[:10])


def test_a_small_sample_of_a_large_source_is_spread_over_the_mixture() -> None:
    large, small = [Row({"id": f"l{n}"}) for n in range(2000)], [Row({"id": f"s{n}"}) for n in range(200)]
    positions = [n for n, line in enumerate(mixed([large, small], [200, 200])) if '"l' in line]
    assert abs(sum(positions) / 200 - 199.5) < 5 * 400 / (12 * 200) ** 0.5


def test_equal_rows_are_not_neighbours() -> None:
    lines = mixed([ROWS * 4])
    assert sum(one == two for one, two in pairwise(lines)) < 20


def test_exact_duplicates_are_what_the_row_teaches() -> None:
    dropped = Dropped()
    seen: set[bytes] = set()
    rows = [
        Row({"id": 1, "prompt": "q", "completion": "a", "seed": 1}),
        Row({"id": 2, "prompt": "q", "completion": "a", "seed": 2}),
        Row({"id": 3, "prompt": "q", "completion": "b"}),
        Row({"id": 4, "prompt": [{"role": "user"}], "completion": "a"}),
    ]
    assert [row["id"] for row in dedupe_rows(rows, seen, dropped)] == [1, 3, 4]
    assert [row["id"] for row in dedupe_rows([Row({"id": 9, "completion": "b", "prompt": "q"})], seen, dropped)] == []
    assert dropped.reasons == {"duplicate": 2}
    bare = [Row({"id": 1, "x": 1}), Row({"id": 2, "x": 1}), Row({"id": 3, "x": 2})]
    assert [row["id"] for row in dedupe_rows(bare, set(), Dropped())] == [1, 3]


def test_words() -> None:
    assert words_of("What's $x_1^2$ in ÄÖÜ?") == ["what", "s", "x_1", "2", "in", "äöü"]
    assert words_of("计算3+4等于多少") == ["计", "算", "3", "4", "等", "于", "多", "少"]


QUESTION = "Natalia sold clips to 48 of her friends in April and then she sold half as many"  # 17 words
OVERLAP = "natalia sold clips to 48 of her friends in april"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"prompt": "natalia SOLD, clips to 48 of her friends: in April!"}, OVERLAP),
        ({"prompt": "natalia sold clips to 48 of her friends in May"}, None),  # nine words
        (
            {"prompt": "x", "completion": "She: to 48 of her friends in April and then she left"},
            "to 48 of her friends in april and then she",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]}, OVERLAP),
        ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": QUESTION}]}, OVERLAP),
        ({"prompt": "what is 3 + 4?"}, "what is 3 4"),  # a benchmark prompt of fewer than ten words, exactly
        ({"prompt": "what is 3 + 4 + 5?"}, None),
        ({"prompt": ""}, None),
    ],
)
def test_overlaps_by_hand(fields: dict, found: str | None) -> None:
    benchmark = Benchmark([Row({"id": "b1", "prompt": QUESTION}, where="b.jsonl:1"), Row({"id": "b2", "prompt": "What is 3+4?"})], 10)
    overlap = benchmark.find(Row({"id": "t", **fields}, where="t.jsonl:5"))
    assert (overlap and overlap.words) == found


def test_contaminated_rows_are_dropped_and_reported() -> None:
    benchmark, dropped = Benchmark([Row({"prompt": "a b c d"}, where="b.jsonl:1")], 3), Dropped()
    rows = [Row({"id": 1, "prompt": "x b c d"}, where="t.jsonl:1"), Row({"id": 2, "prompt": "b c"}, where="t.jsonl:2")]
    assert [row["id"] for row in decontaminate_rows(rows, benchmark, dropped)] == [2]
    assert dropped.reasons == {"shares 3 words in a row with a benchmark": 1}
    assert [(o.row_id, o.row, o.benchmark, o.words) for o in benchmark.overlaps] == [(1, "t.jsonl:1", "b.jsonl:1", "b c d")]
    assert benchmark.common == {"b c d": 1}
