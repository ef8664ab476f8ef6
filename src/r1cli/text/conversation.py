"""SFT rows -> the token sequences to learn, each exactly as it would be sampled.

Every assistant turn becomes a pair (prompt tokens, completion tokens): the conversation before it rendered with the generation prompt, and
what the assistant wrote followed by the end-of-turn token. The assistant's own text never passes through the chat template, because some
templates strip `<think>` from assistant turns and the reasoning would not be learnt.
"""

from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.row import Row, require
from r1cli.text.prompts import PromptRenderer

Turn = tuple[list[int], list[int]]


def turns(row: Row, renderer: PromptRenderer, tokenizer: Any, end_id: int) -> list[Turn]:
    """The (prompt ids, completion ids) of each assistant turn of a row with `messages`, or of a row with `prompt` and `completion`.

    The completion ends with `end_id`. When the prompt already opens the reasoning (a template that writes `<think>`), that opening is not
    repeated. A prompt without a token (`--template raw`, a tokenizer without BOS) has nothing to predict the first token from: that token
    is the prompt then. Raises `R1Error` (exit 2) naming the row when there is nothing to learn.
    """
    learnt = []
    for prompt, text in answers(row):
        prompt_ids = renderer.ids(prompt)
        text = text.removeprefix(renderer.think_prefix) if renderer.think_prefix else text
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not prompt_ids and not ids:
            raise R1Error(
                f"{row.where}: row `{row.get('id')}` is empty: prompt and answer have no token", hint="leave the row out", code=Exit.USAGE
            )
        start = 0 if prompt_ids else 1
        learnt.append((prompt_ids or ids[:start], [*ids[start:], end_id]))
    return learnt


def answers(row: Row) -> list[tuple[Any, str]]:
    """(what came before it, what the assistant wrote) for each assistant turn of a row. Raises `R1Error` (exit 2) when there is none."""
    if "messages" in row:
        return _assistant_turns(row)
    if "completion" in row:
        return [(require(row, "prompt", str, list), require(row, "completion", str))]
    raise R1Error(
        f"{row.where}: row `{row.get('id')}` has neither `messages` nor `prompt` and `completion`; it has {', '.join(row)}",
        hint="rename a column with --map messages=COLUMN",
        code=Exit.USAGE,
    )


def _assistant_turns(row: Row) -> list[tuple[Any, str]]:
    messages = require(row, "messages", list)
    found = []
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str) or "role" not in message:
            raise R1Error(
                f"{row.where}: row `{row.get('id')}`: message {place + 1} needs `role` and `content` (strings)",
                hint='a message is {"role": "user", "content": "..."}',
                code=Exit.USAGE,
            )
        if message["role"] == "assistant":
            if place == 0:
                raise R1Error(
                    f"{row.where}: row `{row.get('id')}` starts with an assistant message: there is no prompt to answer",
                    hint="put the user's message first",
                    code=Exit.USAGE,
                )
            found.append((messages[:place], message["content"]))
    if not found:
        raise R1Error(
            f"{row.where}: row `{row.get('id')}` has no assistant message to learn from", hint="leave the row out", code=Exit.USAGE
        )
    return found
