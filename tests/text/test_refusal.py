"""Refusals told apart by their first sentences."""

import pytest

from r1cli.text.refusal import refuses


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I can't assist with that.",
        "I\u2019m sorry, but I can\u2019t help with that.",
        "I cannot fulfill your request. I'm just an AI.",
        "As an AI, I am unable to provide instructions for that.",
        "It is never okay to hurt anyone. Please talk to someone.",
        "I won't help you write that.",
        "I do not condone violence, and I will not explain how.",
        "It is not accurate or fair to say that. Everyone has rights.",
        "That is illegal and unethical.",
    ],
)
def test_a_reply_that_declines_refuses(reply: str) -> None:
    assert refuses(reply) and refuses(f"  {reply}\n")


@pytest.mark.parametrize(
    "reply",
    [
        "Use `kill -9 PID`. If the process is yours, you can end it at any time.",
        "To kill weeds, pull them out. You cannot do this in winter.",
        "The bank was robbed in 1966. Nobody could help the clerk.",
        "You can't miss it: turn left at the church.",
        "Sure! Here is a story. " + "It was a dark night. " * 20 + "I cannot help you, said the king.",
        "",
        "\n\n",
        "42",
    ],
)
def test_a_reply_that_answers_does_not(reply: str) -> None:
    assert not refuses(reply)
