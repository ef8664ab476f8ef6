"""Mixtures: counts by hand, the same bytes for every order of the input; duplicates and benchmark overlaps."""

import json
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.steps.decontaminate import Benchmark, decontaminate_rows, texts_of, words_of
from r1cli.steps.dedupe import canonical, dedupe_rows, first_of_equal
from r1cli.steps.grams import RowWords
from r1cli.steps.keep import Dropped
from r1cli.steps.limits import limits_of, span_of
from r1cli.steps.mix import Part, allot, check_parts, part_of


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a.jsonl", Part("a.jsonl")),
        ("a.jsonl:100", Part("a.jsonl", count=100)),
        ("a.jsonl=0.3", Part("a.jsonl", weight=0.3)),
        ("-", Part("-")),
        ("hf:./d:train", Part("hf:./d:train")),
        ("hf:./d:train:7", Part("hf:./d:train", count=7)),
        ("a.jsonl:25%", Part("a.jsonl", share=Fraction(1, 4))),
        ("a.jsonl:2.5x", Part("a.jsonl", share=Fraction(5, 2))),
        ("a.jsonl:0.1%", Part("a.jsonl", share=Fraction(1, 1000))),
        ("hf:./d:test:.5x", Part("hf:./d:test", share=Fraction(1, 2))),
        ("hf:org/n@v1:train=2", Part("hf:org/n@v1:train", weight=2.0)),
        ("k=v/a.jsonl", Part("k=v/a.jsonl")),
        ("a=1.jsonl", Part("a=1.jsonl")),
        ("-=3", Part("-", weight=3.0)),
        ("/dev/stdin:2x", Part("-", share=Fraction(2))),
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
        (weighted(0.5, 0.5), [0, 9], None, [0, 0]),
        ([Part("a", share=Fraction(1, 4)), Part("b", share=Fraction(5, 2))], [10, 3], None, [3, 8]),  # 2.5 and 7.5, halves up
        ([Part("a", share=Fraction(1, 3)), *weighted(1)], [9, 100], 10, [3, 7]),
        ([Part("a", share=Fraction(2))], [0], None, [0]),
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


def test_rows_are_repeated_only_when_that_is_asked_for() -> None:
    assert allot([Part("a", count=6), *weighted(1)], [3, 4], 14, max_repeat=2) == [6, 8]
    with pytest.raises(R1Error, match="`a` has 3 rows to give, 7 are asked for") as caught:
        allot([Part("a", count=7)], [3], None, max_repeat=2)
    assert caught.value.hint == "ask for fewer, or --max-repeat 3 to repeat rows"


def test_weights_and_totals_must_make_sense_together() -> None:
    with pytest.raises(R1Error, match="all weights are 0"):
        check_parts(weighted(0, 0), None)
    with pytest.raises(R1Error, match="is the only weight, so it does nothing"):
        check_parts([*weighted(3), Part("b")], None)
    check_parts([*weighted(3), Part("b")], 100)  # it fills what the others leave of the total
    with pytest.raises(R1Error, match="`--total` needs weights"):
        check_parts([Part("a"), Part("b", count=3)], 10)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 1000))
def test_weights_share_the_total_exactly_and_fairly(weights: list[float], total: int) -> None:
    counts = allot(weighted(*weights), [10**6] * len(weights), total)
    assert sum(counts) == total
    assert all(abs(count - total * weight / sum(weights)) < 1 + 1e-6 for count, weight in zip(counts, weights, strict=True))


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
        ({"prompt": None, "messages": [{"role": "user", "content": "what is 3 + 4?"}]}, "what is 3 4"),
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


# Few words, so that runs of them meet; İ, whose lower case is longer, CJK, a final sigma, digits of other scripts, half a surrogate pair.
SOME_WORDS = st.sampled_from(["a", "B", "x_1", "\u0130I", "ΣΣ", "计算", "3", "\u0663", "\ud800", "café", "あ", "."])
TEXT = st.lists(SOME_WORDS, max_size=14).map(" ".join) | st.text(max_size=12)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"prompt": TEXT},
        optional={
            "completion": TEXT,
            "messages": st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}), max_size=2),
        },
    ),
    max_size=5,
).map(lambda found: [Row(fields) for fields in found])


@settings(deadline=None)  # the first call makes tables
@given(ROWS, ROWS, st.integers(1, 5))
def test_no_overlap_escapes_the_hashes(rows: list[Row], prompts: list[Row], n: int) -> None:
    """Suspects by hashes are exactly the rows in which a comparison of words finds an overlap."""
    benchmark = Benchmark(prompts, n)
    suspects = benchmark.suspects().among(rows, RowWords([list(texts_of(row)) for row in rows]))
    assert suspects == [number for number, row in enumerate(rows) if benchmark.find(row) is not None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON)
def test_canonical_bytes_are_equal_for_equal_values_only(one: object, other: object) -> None:
    assert (canonical(one) == canonical(other)) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


@given(st.lists(st.integers(0, 4), max_size=30), st.randoms(use_true_random=False))
def test_of_equal_rows_the_one_with_the_lowest_key_stays(contents: list[int], rng: random.Random) -> None:
    keys = list(range(len(contents)))
    rng.shuffle(keys)
    pairs = np.array([(content % 2, content) for content in contents], np.uint64).reshape(-1, 2)
    best = {content: min(key for other, key in zip(contents, keys, strict=True) if other == content) for content in contents}
    assert [keys[leader] for leader in first_of_equal(pairs, np.array(keys, np.int64))] == [best[content] for content in contents]


@pytest.mark.parametrize(
    ("chars", "languages", "row", "reason"),
    [
        ("5..", [], {"prompt": "ab", "completion": "cd"}, "shorter than 5 characters"),
        ("..3", [], {"prompt": "abcd"}, "longer than 3 characters"),
        ("4..4", [], {"prompt": "ab", "completion": "cd"}, None),
        (None, ["en"], {"prompt": "这是一个问题"}, "in another language (zh)"),
        (None, ["zh", "en"], {"prompt": "这是一个问题"}, None),
        (None, ["en"], {"prompt": "1 + 1"}, None),
    ],
)
def test_limits(chars: str | None, languages: list[str], row: dict, reason: str | None) -> None:
    [judge] = limits_of(chars, languages)
    assert judge(Row(row)) == reason


@pytest.mark.parametrize("text", ["5", "..", "a..b", "7..3", "-1..3"])
def test_a_range_that_is_none(text: str) -> None:
    with pytest.raises(R1Error, match="--chars"):
        span_of(text)
