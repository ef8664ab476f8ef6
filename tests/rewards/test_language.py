"""The language reward: which part is judged, and against which language."""

from typing import Any

import pytest

from r1cli.errors import Exit, R1Error
from r1cli.rewards.language import LanguageReward
from r1cli.row import Row
from r1cli.text.question import prompt_text

ENGLISH = "The total is found by adding both of the numbers together."  # 11 words
CHINESE = "总数等于两个数字相加的和"  # 12 characters


def score(completion: str, reward: LanguageReward | None = None, **fields: Any) -> float:
    return (reward or LanguageReward()).score(Row({"prompt": "What is the sum of the two numbers?", "completion": completion, **fields}))


def test_only_the_reasoning_counts() -> None:
    assert score(f"<think>{ENGLISH}</think>{CHINESE}{CHINESE}") == 1.0
    assert score(f"<think>{CHINESE}</think>{ENGLISH}") == 0.0
    assert score(f"<think>{ENGLISH} {CHINESE}</think> 5") == pytest.approx(11 / 23)
    assert score(f"{ENGLISH} {CHINESE}</think> 5", think_prefix="<think>\n") == pytest.approx(11 / 23)


def test_without_reasoning_the_whole_completion_counts() -> None:
    assert score(f"{ENGLISH} {CHINESE}") == pytest.approx(11 / 23)


def test_the_target_is_the_rows_then_the_options_then_the_prompts() -> None:
    mixed = f"<think>{CHINESE}</think>"
    assert score(mixed, LanguageReward(target="en"), language="zh-CN") == 1.0
    assert score(mixed, LanguageReward(target="zh")) == 1.0
    assert score(mixed) == 0.0
    assert score(mixed, prompt="两个数字的和是多少？") == 1.0
    assert score(mixed, prompt=[{"role": "system", "content": "Think."}, {"role": "user", "content": "两个数字的和是多少？"}]) == 1.0
    assert score(mixed, prompt="$3 + 4 =$") == 1.0  # no words, no target: neutral


def test_short_reasonings_earn_the_neutral_value() -> None:
    assert score("<think>是</think>5") == 1.0
    assert score("<think></think>5") == 1.0
    assert score("<think>是</think>5", LanguageReward(neutral=0.5)) == 0.5
    assert score("<think>是的，没错</think>5", LanguageReward(least=4)) == 0.0


def test_an_unknown_language_names_the_row() -> None:
    with pytest.raises(R1Error, match="row `7`: unknown language `xx`") as error:
        score(ENGLISH, id=7, language="xx")
    assert error.value.code == Exit.USAGE


def test_the_prompts_text_is_its_last_user_message() -> None:
    parts = [{"type": "text", "text": "Bonjour"}, {"type": "image"}]
    assert prompt_text(Row({"prompt": [{"role": "user", "content": "Hello"}, {"role": "user", "content": parts}]})) == "Bonjour\n"
    assert prompt_text(Row()) == ""
