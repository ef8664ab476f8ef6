"""The readability filters: what each drops, where its threshold lies, and what real text they were set on."""

import json
from pathlib import Path

import pytest

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.steps.readability import KINDS, parse, reason_of

ENGLISH = "We add the two numbers and then we check that the sum is right by taking one of them away again."
FRENCH = "Nous devons donc additionner les deux nombres et vérifier que la somme est bien celle que nous avons trouvée avant. "
CHINESE = "我们把两个数字相加，然后检查结果是否正确。"


def reason(filters: str, reasoning: str, summary: str = "It is 4.", **fields: object) -> str | None:
    row = Row({"id": "a", "prompt": "What is the sum of two and two?", "completion": f"<think>{reasoning}</think>{summary}", **fields})
    return reason_of(parse(filters), row)


@pytest.mark.parametrize(
    ("filters", "reasoning", "expected"),
    [
        ("readable", ENGLISH, None),
        ("mixed-language", ENGLISH + CHINESE, "mixed languages"),
        ("mixed-language", CHINESE, "mixed languages"),
        ("mixed-language:share=0.3", ENGLISH + CHINESE, None),
        ("mixed-language", "对", None),  # too short to judge
        ("mixed-language", ENGLISH * 5 + " Red pens: 5 packs x 5 pens/pack. Black pens: 25 pens. Total pens: 75 pens.", None),
        ("mixed-language", ENGLISH * 5 + "防护措施", "mixed languages"),
        ("mixed-language", ENGLISH + " " + FRENCH * 3, "mixed languages"),
        ("long-paragraph", "word " * 200, None),
        ("long-paragraph", "word " * 201, "a paragraph of more than 200 words"),
        ("long-paragraph", "word " * 150 + "\n \n" + "word " * 150, None),
        ("long-paragraph:words=3", "one two three four", "a paragraph of more than 3 words"),
        ("code-block", "first\n```python\nx = 1\n```", "a code block in the reasoning"),
        ("code-block", "first\n  ~~~\nx\n~~~", "a code block in the reasoning"),
        ("code-block", "an `inline` word and a ``` inside a line", None),
        ("repetition", "so we have it again and again " * 20, "more than 0.2 of it repeated"),
        ("repetition:share=1", "wait " * 400, None),
    ],
)
def test_reasons(filters: str, reasoning: str, expected: str | None) -> None:
    assert reason(filters, reasoning) == expected


def test_the_target_language_is_the_rows_and_else_that_of_the_prompt() -> None:
    assert reason("mixed-language", CHINESE, language="zh-CN") is None
    assert reason("mixed-language", CHINESE, prompt="二加二等于多少？") is None
    assert reason("mixed-language", ENGLISH, prompt="二加二等于多少？") == "mixed languages"
    with pytest.raises(R1Error, match="row `a`: unknown language `xx`"):
        reason("mixed-language", ENGLISH, language="xx")


def test_code_after_the_reasoning_is_the_answer() -> None:
    assert reason("code-block", ENGLISH, summary="```python\nprint(4)\n```") is None
    assert reason_of(parse("code-block"), Row({"completion": "```\n4\n```"})) is None


def test_truncated_is_what_the_sampler_says_and_nothing_else() -> None:
    assert reason("truncated", ENGLISH, finish_reason="length") == "truncated"
    assert reason("truncated", "never closed", summary="", finish_reason="stop") is None
    assert reason("truncated", ENGLISH) is None


def test_the_first_filter_that_objects_gives_the_reason() -> None:
    text = "```\n" + "wait " * 300
    assert reason("readable", text, finish_reason="length") == "truncated"
    assert reason("repetition,code-block", text) == "more than 0.2 of it repeated"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mixed", "unknown filter `mixed`"),
        ("truncated,truncated", "`truncated` is named twice"),
        ("readable,code-block", "is named twice"),
        ("repetition:share=2", "`share=2` is not a threshold"),
        ("repetition:words=2", "`words=2` is not a threshold"),
        ("code-block:words=2", "is not a threshold"),
        ("long-paragraph:words=many", "is not a threshold"),
        ("repetition:share=nan", "is not a threshold"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(R1Error, match=message) as caught:
        parse(text)
    assert caught.value.code == 2


def test_readable_is_all_of_them() -> None:
    assert [found.name for found in parse("readable")] == list(KINDS)


def test_megabytes_take_no_longer_than_their_length() -> None:
    for text in ("```" * 300_000, "\n" * 900_000, "<think>" * 100_000, "a" * 900_000):
        reason("code-block,long-paragraph,repetition", text)


REAL = Path(__file__).parents[3] / "shared" / "data" / "r1_traces_star1_safety.jsonl"


@pytest.mark.skipif(not REAL.is_file(), reason="the collected traces are not beside the tree")
def test_of_real_r1_traces_only_the_one_that_breaks_into_chinese_is_dropped() -> None:
    rows = [Row({**json.loads(line), "completion": json.loads(line)["solution"]}) for line in REAL.read_text("utf-8").splitlines()[:100]]
    objections = {row["id"]: found for row in rows if (found := reason_of(parse("readable"), row))}
    assert objections == {"star1/737": "mixed languages"}
