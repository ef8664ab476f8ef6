"""What is found wrong before anything is trained."""

import pytest

from r1cli.commands.preflight import FAIL, OK, WARN, Finding, check_golds, check_lengths, check_model, rows_with_golds, stop_or_warn
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.report.console import Console
from r1cli.rewards.registry import parse_specs
from r1cli.row import Row
from r1cli.text.prompts import PromptRenderer
from tests.text.test_conversation import STRIPS_THINK
from tests.tiny import tiny_tokenizer


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.level for finding in findings}


def test_a_template_that_strips_reasoning_is_a_warning_and_one_that_opens_it_is_said() -> None:
    plain, strips = tiny_tokenizer(), tiny_tokenizer(chat_template=STRIPS_THINK)
    assert levels(check_model(plain, PromptRenderer(plain), plain.eos_token_id)) == {"end of turn": OK}
    found = check_model(strips, PromptRenderer(strips), strips.eos_token_id)
    assert levels(found) == {"end of turn": OK, "reasoning": OK, "chat history": WARN}


def test_padding_with_the_end_token_is_named() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    assert "padding" in levels(check_model(tokenizer, PromptRenderer(tokenizer), tokenizer.eos_token_id))


def test_lengths_against_limits_and_context() -> None:
    assert levels(check_lengths([10, 20], 32, 64, 128)) == {"prompt length": OK}
    assert levels(check_lengths([10, 40], 32, 64, 96)) == {"prompt length": WARN}
    assert levels(check_lengths([10, 20], 32, 64, 80)) == {"prompt length": OK, "context": FAIL}


def test_golds_that_cannot_be_compared_with_fail_and_null_is_a_declaration() -> None:
    good = [Row({"id": "a", "prompt": "?", "answer": "1/2"}), Row({"id": "b", "prompt": "?", "answer": None})]
    assert levels(check_golds(good, 5.0)) == {"gold answers": OK}
    bad = check_golds([*good, Row({"id": "c", "prompt": "?", "answer": ""})], 5.0)
    assert levels(bad) == {"gold answers": FAIL} and "`c`" in bad[0].text
    rows = [Row({"set": "reasoning"}), Row({"set": "helpful"})]
    assert rows_with_golds(parse_specs("format,accuracy=0.5"), rows) == rows
    assert rows_with_golds(parse_specs("accuracy:set=reasoning"), rows) == rows[:1]
    assert rows_with_golds(parse_specs("format,language"), rows) == []


def test_a_failure_stops_with_its_fix() -> None:
    context = Context("grpo", {}, Console(quiet=2, progress=False))
    stop_or_warn([Finding("a", OK, "fine"), Finding("b", WARN, "odd")], context)
    with pytest.raises(R1Error, match="c: broken") as raised:
        stop_or_warn([Finding("c", FAIL, "broken", "do this")], context)
    assert raised.value.hint == "do this"
