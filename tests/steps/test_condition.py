"""The language of `--keep`: what it means, what it refuses, and that it is never Python."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.steps.condition import parse

ROW = Row(
    {
        "id": "q1",
        "language": "en",
        "num_tokens": 120,
        "finish_reason": "stop",
        "domain": "math",
        "meta": {"level": 3, "tags": ["a", "b"]},
        "rewards": {"accuracy": 1.0, "language": 0.95, "length": None},
        "reward": 1.95,
        "done": True,
        "completion": 'say "hi"',
        "größe": 2,
    },
    where="a.jsonl:4",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy == 1 and language > 0.9", True),
        ("language > 0.96", False),
        ("row.language == 'en'", True),
        ("rewards.accuracy == 1.0", True),
        ('num_tokens < 100 or finish_reason == "stop"', True),
        ("not num_tokens < 100 and not accuracy < 1", True),
        ("not not accuracy == 1", True),
        ("not (accuracy == 1 or reward > 5)", False),
        ("0.5 < reward <= 1.95", True),
        ("0.5 < reward < 1.95", False),
        ("1 < 2 > 0 == false", False),
        ("domain in ['math', 'code']", True),
        ("domain not in ['math', 'code',]", False),
        ("'hi' in completion", True),
        (r"'say \"hi\"' == completion", True),
        ("meta.level >= 3 and 'a' in meta.tags", True),
        ("'level' in meta", True),
        ("length == null", True),
        ("length < 1 or length >= 1", False),
        ("not length < 1", True),
        ("length != 1", True),
        ("done", True),
        ("done == true", True),
        ("done == 1", False),
        ("größe == 2", True),
        ("reward > -1", True),
        ("reward > 1e0", True),
        ("accuracy==1 and(language>.9)", True),
        ("false or true and false", False),
        ("(false or true) and true", True),
        ("2 in []", False),
    ],
)
def test_meaning(text: str, expected: bool) -> None:
    assert parse(text)(ROW) is expected


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 1, "expected a name, a number or a string, found the end"),
        ("accuracy ==", 12, "found the end"),
        ("accuracy = 1", 10, "`=` is not part of a condition"),
        ("accuracy == 1 && reward", 15, "&&"),
        ("!accuracy", 1, "`!` is not part of a condition"),
        ("accuracy == 1 reward", 15, "found `reward`"),
        ("(accuracy == 1", 15, "expected `)`, found the end"),
        ("accuracy in [1, 2", 18, "expected `]`, found the end"),
        ("accuracy not 1", 14, "expected `in`, found `1`"),
        ("accuracy == 'one", 13, "cannot read `'one`"),
        ("accuracy == 1 ; import os", 15, "cannot read `; import o`"),
        ("and accuracy", 1, "found `and`"),
        ("__import__('os')", 11, "expected `and`, `or` or the end, found `(`"),
        ("().__class__", 3, "cannot read `.__class__`"),
        ("accuracy==1and language>.9", 11, "cannot read `1and langu`"),
        ("3x == 1", 1, "cannot read"),
        ("(" * 60 + "1" + ")" * 60, 52, "more than 50 brackets"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, reason: str) -> None:
    with pytest.raises(R1Error) as caught:
        parse(text)
    assert caught.value.message.startswith(f"condition, column {column}: ")
    assert reason in caught.value.message
    assert caught.value.code == 2


def test_foreign_words_get_ours_as_hint() -> None:
    for text, word in (("a = 1", "=="), ("a && b", "and"), ("a || b", "or"), ("!a", "not")):
        with pytest.raises(R1Error) as caught:
            parse(text)
        assert caught.value.hint == f"write `{word}`"


def test_a_name_the_row_does_not_have_is_an_error() -> None:
    with pytest.raises(R1Error, match=r"a.jsonl:4: row `q1` has nothing named `acuracy`") as caught:
        parse("acuracy == 1")(ROW)
    assert caught.value.hint == "did you mean `accuracy`?"
    for text in ("meta.depth == 1", "rewards.format == 1", "row.nothing", "reward.x"):
        with pytest.raises(R1Error, match="has nothing named"):
            parse(text)(ROW)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("domain > 1", "column 8: `>` cannot compare a string with a number"),
        ("meta < 1", "cannot compare an object with a number"),
        ("1 in reward", "`in` cannot look for a number in a number"),
        ("1 in domain", "`in` cannot look for a number in a string"),
    ],
)
def test_unlike_types_are_not_compared(text: str, reason: str) -> None:
    with pytest.raises(R1Error, match=reason):
        parse(text)(ROW)


@given(st.text(max_size=30))
def test_no_text_does_anything_but_parse_or_say_where_it_cannot(text: str) -> None:
    try:
        condition = parse(text)
        assert condition(ROW) in (True, False)
    except R1Error as error:
        assert error.code == 2


numbers = st.integers(-3, 3).map(str) | st.sampled_from(["accuracy", "num_tokens", "meta.level", "2.5"])
comparisons = st.builds(lambda a, op, b: f"{a} {op} {b}", numbers, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers)
expressions = st.recursive(
    comparisons,
    lambda inner: (
        st.builds(lambda a, op, b: f"{a} {op} {b}", inner, st.sampled_from(["and", "or"]), inner)
        | st.builds("({})".format, inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=8,
)


@given(expressions)
def test_it_agrees_with_python_where_both_have_a_meaning(text: str) -> None:
    names = {"accuracy": "1.0", "num_tokens": "120", "meta.level": "3"}
    python = text
    for name, value in names.items():
        python = python.replace(name, value)
    assert parse(text)(ROW) == eval(python)  # the test's own text, made above


ATTACKS = ["__import__('os').system('x')", "row.__class__", "().__class__", "eval"]


@given(st.one_of(expressions, st.text(max_size=30), st.sampled_from(ATTACKS)))
def test_nothing_is_ever_evaluated(text: str) -> None:
    """Not one of Python's ways to run or look up code from text is called, whatever the condition is."""
    import builtins
    from unittest import mock

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a condition reached the interpreter")

    with mock.patch.multiple(builtins, eval=refuse, exec=refuse, compile=refuse, __import__=refuse):
        try:
            parse(text)(ROW)
        except R1Error:
            return


@given(st.lists(st.sampled_from(["true", "false"]), min_size=2, max_size=8), st.data())
def test_not_binds_tighter_than_and_and_and_tighter_than_or(values: list[str], data: st.DataObject) -> None:
    joins = [data.draw(st.sampled_from(["and", "or"])) for _ in values[1:]]
    signs = [data.draw(st.sampled_from(["", "not ", "not not "])) for _ in values]
    words = [f"{sign}{value}" for sign, value in zip(signs, values, strict=True)]
    text = " ".join(part for pair in zip(words, [*joins, ""], strict=True) for part in pair).strip()
    truth = [(value == "true") != (sign == "not ") for sign, value in zip(signs, values, strict=True)]
    products = [[truth[0]]]
    for join, value in zip(joins, truth[1:], strict=True):
        if join == "or":
            products.append([value])
        else:
            products[-1].append(value)
    assert parse(text)(ROW) is any(all(product) for product in products)


@given(
    st.from_regex(r"[a-z]{3,8}(\.[a-z]{1,5})?", fullmatch=True).filter(
        lambda name: name.split(".")[0] not in (*ROW, *ROW["rewards"], "row", "and", "not", "true", "false", "null")
    )
)
def test_a_missing_field_is_an_error_wherever_it_is_reached(name: str) -> None:
    for text in (f"{name} == 1", f"accuracy == 1 and {name}", f"not {name}", f"1 in [{name}]", f"0 < 1 < {name}"):
        with pytest.raises(R1Error, match="has nothing named"):
            parse(text)(ROW)
    assert parse(f"accuracy == 1 or {name}")(ROW) is True  # what decides already is not asked further


def test_thousands_of_digits_are_refused() -> None:
    with pytest.raises(R1Error, match="column 13: cannot read a number of 5000 digits"):
        parse("accuracy == " + "9" * 5000)
