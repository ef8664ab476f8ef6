"""What is found wrong before anything is trained."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.commands.preflight import (
    FAIL,
    OK,
    WARN,
    Finding,
    check_lengths,
    check_lessons,
    check_model,
    check_padding,
    context_of,
    stop_or_warn,
    turn_end,
)
from r1cli.commands.row_check import check_rows, rows_with_golds
from r1cli.commands.training import end_of_turn
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.report.console import Console
from r1cli.rewards.registry import parse_specs
from r1cli.row import Row
from r1cli.text.prompts import PromptRenderer
from r1cli.train import batches
from r1cli.train.batches import Sample
from tests.text.test_conversation import STRIPS_THINK
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.level for finding in findings}


def test_a_template_that_strips_reasoning_is_a_warning_and_one_that_opens_it_is_said() -> None:
    plain, strips = tiny_tokenizer(), tiny_tokenizer(chat_template=STRIPS_THINK)
    assert levels(check_model(plain, PromptRenderer(plain), plain.eos_token_id)) == {"end of turn": OK}
    found = check_model(strips, PromptRenderer(strips), strips.eos_token_id)
    assert levels(found) == {"end of turn": OK, "reasoning": OK, "chat history": WARN}
    alone = check_model(strips, PromptRenderer(strips), strips.eos_token_id, several_turns=False)
    assert levels(alone)["chat history"] == OK


def test_a_turn_that_ends_otherwise_than_sampling_stops_is_a_warning() -> None:
    """As the base models of Qwen are published: the template says <|im_end|>, generation stops at <|endoftext|>."""
    tokenizer = tiny_tokenizer()
    shown, other = tokenizer.eos_token_id, tokenizer.bos_token_id
    assert turn_end(tokenizer) == shown
    found = check_model(tokenizer, PromptRenderer(tokenizer), other, frozenset({other}))
    assert levels(found) == {"end of turn": WARN}
    assert "ends a turn with `<|im_end|>`, sampling stops at `<|bos|>`" in found[0].text and found[0].fix.startswith(f"add {shown} to")
    assert levels(check_model(tokenizer, PromptRenderer(tokenizer), other, frozenset({shown, other}))) == {"end of turn": OK}
    assert levels(check_model(tokenizer, PromptRenderer(tokenizer, template="raw"), other, frozenset({other}))) == {"end of turn": OK}
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert turn_end(tokenizer) is None


def test_answers_end_with_the_token_of_the_template_where_sampling_stops_at_it(tmp_path: Path) -> None:
    """As Gemma's chat models are: the tokenizer's EOS is another token than the one that ends a turn, and sampling stops at both."""
    tokenizer = tiny_tokenizer()
    shown, other = tokenizer.eos_token_id, tokenizer.bos_token_id
    tokenizer.eos_token = tokenizer.bos_token
    for stops, expected in (([other, shown], shown), ([other], other)):
        (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {stops}}}')
        assert end_of_turn(str(tmp_path), tokenizer) == expected


END = 2
OPENED, CLOSED = "<think>\n", "<think>\n\n</think>\n\n"
GOOD = ([5], [6, 7, END])


def found_in(texts: list[str], think_prefix: str = "", closed_think: str = "", **fields: Any) -> list[Finding]:
    """What is found in answers that end once, one a row."""
    rows = [Row({"id": place, **fields}, where=f"rows.jsonl:{place}") for place in range(1, len(texts) + 1)]
    return check_lessons([GOOD] * len(texts), texts, rows, END, think_prefix, closed_think)


def test_answers_end_once() -> None:
    rows = [Row({"id": place}, where=f"rows.jsonl:{place}") for place in (1, 2, 3)]
    early = ([5], [6, END, 7, END])
    assert levels(check_lessons([GOOD, GOOD], ["a", "b"], rows[:2], END)) == {"answers": OK}
    (some,) = check_lessons([GOOD, GOOD, early], ["a", "b", "c"], rows, END)
    assert some.level == WARN and some.text.startswith("1 of 3 answers hold the end-of-turn token in their text")
    assert some.text.endswith(" (rows.jsonl:3)")
    assert levels(check_lessons([early, early, GOOD], ["a", "b", "c"], rows, END)) == {"early end": FAIL}


def test_answers_go_on_where_the_prompt_has_opened_the_reasoning() -> None:
    good, twice = "a</think>b", "<think> a</think>b"  # not what the template wrote, so it is not taken off
    assert levels(found_in(["<think>\na</think>b", good], OPENED)) == {"answers": OK}
    assert levels(found_in([twice], OPENED)) == {"reasoning twice": FAIL}
    (few,) = found_in([good, good, twice], OPENED)
    assert (few.name, few.level) == ("reasoning twice", WARN) and "rows.jsonl:3" in few.text and few.fix
    assert levels(found_in([good, good, "b"], OPENED)) == {"no reasoning": WARN}
    assert levels(found_in([good, "b", "b"], OPENED)) == {"no reasoning": FAIL}


def test_a_closing_tag_that_nothing_opens_is_a_warning() -> None:
    good, alone = "<think>\na</think>b", "a</think>b"
    (found,) = found_in([good, alone, "b"])
    assert (found.name, found.level) == ("reasoning without <think>", WARN)
    assert "rows.jsonl:2" in found.text and "`think_prefix`" in found.fix
    assert levels(found_in([alone, alone, "</think> <think>a</think>b"])) == {"reasoning without <think>": WARN}, "never a failure"
    assert levels(found_in([alone], prompt="q <think>\n")) == {"answers": OK}, "a plain prompt may open it"
    assert levels(found_in([alone], OPENED)) == {"answers": OK}


def test_an_opening_that_stands_in_the_row_is_not_opened_twice() -> None:
    text = "<think>a</think>b"  # without the newline of the template that opens
    row = Row({"prompt": "q", "completion": "a</think>b"})
    assert levels(check_lessons([GOOD], [text], [row.with_fields(think_prefix="<think>")], END, OPENED)) == {"answers": OK}
    assert levels(check_lessons([GOOD], [text], [row], END, OPENED)) == {"reasoning twice": FAIL}


def test_a_prompt_that_closes_an_empty_reasoning_fails_for_every_answer_that_reasons() -> None:
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE.replace("assistant\n{%", "assistant\n" + CLOSED + "{%"))
    renderer = PromptRenderer(tokenizer)
    assert (renderer.think_prefix, renderer.closed_think) == ("", CLOSED)
    reasons = "<think>\na\n</think>\n\nb"
    (found,) = found_in(["b", "b", reasons], renderer.think_prefix, renderer.closed_think)
    assert (found.name, found.level) == ("reasoning twice", FAIL)
    assert found.text.startswith("1 of 3 answers") and found.text.endswith("(rows.jsonl:3)") and "--template" in found.fix
    assert levels(found_in(["b", "b"], renderer.think_prefix, renderer.closed_think)) == {"answers": OK}
    assert levels(found_in([reasons])) == {"answers": OK}


def test_answers_that_are_not_finished() -> None:
    whole, never = "<think>a</think>b", "<think>a"
    assert levels(found_in([whole, "plain", "it writes <think>"])) == {"answers": OK}
    (some,) = found_in([whole, whole, never])
    assert (some.name, some.level) == ("open reasoning", WARN) and "rows.jsonl:3" in some.text and "r1 reject" in some.fix
    assert levels(found_in([whole, never, never])) == {"open reasoning": FAIL}
    (some,) = found_in([whole, " \n", "a"])
    assert (some.name, some.level) == ("empty answer", WARN) and "rows.jsonl:2" in some.text and some.fix
    assert levels(found_in(["", "", "a"])) == {"empty answer": FAIL}
    assert levels(found_in([OPENED, "a</think>b", "a</think>b"], OPENED)) == {"empty answer": WARN, "no reasoning": WARN}


def test_rows_whose_completion_was_cut() -> None:
    cut, whole, silent = Row({"id": 1, "finish_reason": "length"}), Row({"id": 2, "finish_reason": "stop"}), Row({"id": 3})
    (some,) = check_lessons([GOOD] * 4, ["a"] * 4, [whole, cut, cut, silent], END)  # two turns of one row are one row
    assert (some.name, some.level) == ("cut off", WARN) and some.text.startswith("1 of 3 rows") and some.text.endswith("(row `1`)")
    assert "r1 reject --filters truncated" in some.fix
    assert levels(found_in(["a"] * 3, finish_reason="length")) == {"cut off": FAIL}


def test_three_rows_are_named_and_the_rest_is_shown_to_be_there() -> None:
    (found,) = found_in([""] * 5)
    assert found.text.endswith("(rows.jsonl:1, rows.jsonl:2, rows.jsonl:3, ...)")


@pytest.mark.parametrize("pad_id", [0, END])
def test_the_loss_covers_ends_and_no_padding_whatever_pads(monkeypatch: pytest.MonkeyPatch, pad_id: int) -> None:
    rows = [[Sample(0, [5, 6], [7, END])], [Sample(1, [5], [7, 8, 9, 9, END])]]
    assert check_padding(rows, pad_id).level == OK
    plain = batches.collate

    def by_token(*arguments: Any) -> Any:
        """The mistake that is looked for: a mask made of the padding token's id."""
        batch = plain(*arguments)
        batch.target_N = batch.target_N[batch.target_N != pad_id]
        return batch

    monkeypatch.setattr(batches, "collate", by_token)
    assert check_padding(rows, pad_id).level == (FAIL if pad_id == END else OK)


def test_the_context_is_what_the_configuration_says() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert context_of(SimpleNamespace(max_position_embeddings=4096)) == 4096
    assert context_of(SimpleNamespace(max_position_embeddings=32768, rope_parameters=yarn)) == 131072
    assert context_of(SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=10))) == 10
    assert context_of(SimpleNamespace()) is None


def test_padding_with_the_end_token_is_named() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    assert "padding" in levels(check_model(tokenizer, PromptRenderer(tokenizer), tokenizer.eos_token_id))


def test_lengths_against_limits_and_context() -> None:
    assert levels(check_lengths([10, 20], 32, 64, 128)) == {"prompt length": OK}
    (over,) = check_lengths([10, 40], 32, 64, 96, [Row({}, where="a:1"), Row({}, where="a:2")])
    assert over.level == WARN and over.text.endswith("would be left out (a:2)")
    assert levels(check_lengths([10, 40], 32, 64, 96)) == {"prompt length": WARN}
    assert levels(check_lengths([10, 40], 32, 64, 80)) == {"prompt length": WARN}  # one that is left out needs no room
    assert levels(check_lengths([10, 20], 32, 64, 80)) == {"prompt length": OK, "context": FAIL}


def test_golds_that_cannot_be_compared_with_fail_and_null_is_a_declaration() -> None:
    good = [Row({"id": "a", "prompt": "?", "answer": "1/2"}), Row({"id": "b", "prompt": "?", "answer": None})]
    math = parse_specs("math")
    assert levels(check_rows(math, good, 5.0).findings) == {"gold answers": OK}
    bad = check_rows(math, [*good, Row({"id": "c", "prompt": "?", "answer": ""})], 5.0).findings
    assert levels(bad) == {"gold answers": FAIL} and "`c`" in bad[0].text
    rows = [Row({"set": "reasoning"}), Row({"set": "helpful"})]
    assert rows_with_golds(parse_specs("format,accuracy=0.5"), rows) == rows
    assert rows_with_golds(parse_specs("accuracy:set=reasoning"), rows) == rows[:1]
    assert rows_with_golds(parse_specs("format,language"), rows) == []


def test_warnings_are_said_with_their_fix_and_a_failure_stops_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context("grpo", {}, Console(quiet=2, progress=False))
    said: list[str] = []
    monkeypatch.setattr(context.console, "warn", said.append)
    stop_or_warn([Finding("a", OK, "fine", "no"), Finding("b", WARN, "odd", "turn it"), Finding("c", WARN, "so")], context)
    assert said == ["b: odd (fix: turn it)", "c: so"]
    with pytest.raises(R1Error, match="c: broken") as raised:
        stop_or_warn([Finding("c", FAIL, "broken", "do this")], context)
    assert raised.value.hint == "do this"
