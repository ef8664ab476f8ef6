"""The rewrite pass: raw reasoning in, readable reasoning and a summary out, as R1's cold-start data was made from R1-Zero's completions
(arXiv 2501.12948, section 2.3.1).

A completion row becomes a prompt that shows the problem and the raw completion. What the model answers becomes the row's `completion`; the
raw one moves to `raw_completion`, and what was known of it to `raw_model`.
"""

from r1cli.row import Prompt, Row, messages_of, require
from r1cli.text.templates import OPEN

TASK = """Below are a problem and a draft that solves it by thinking aloud. Rewrite the draft so that it is a pleasure to read.

Problem:
{problem}

Draft:
{draft}

Write the reasoning between <think> and </think>: in the language of the problem and no other, in short paragraphs of whole sentences, \
in the first person. Keep every step, check and correction that matters for the result, in the order of the draft, and add nothing of \
your own. Leave out repetitions and stray code. After </think>, write a short summary of the solution for the reader that ends with the \
final answer of the draft, in the form the problem asks for."""


def rewrite_prompt(row: Row) -> Prompt:
    """What a model is asked to rewrite. Raises `R1Error` (exit 2) when the row is not a completion row."""
    completion = require(row, "completion", str)
    prefix = row.get("think_prefix")
    draft = (prefix if isinstance(prefix, str) else OPEN + "\n" if prefix is True else "") + completion
    return TASK.replace("{problem}", _words(require(row, "prompt", str, list))).replace("{draft}", draft)


def raw_fields(row: Row) -> dict[str, object]:
    """What a rewritten row keeps of the completion it was made from."""
    return {"raw_completion": row["completion"], "raw_model": row.get("model")}


def _words(prompt: Prompt) -> str:
    """A prompt as text: of a conversation, every message under its role."""
    if isinstance(prompt, str):
        return prompt
    messages = messages_of(prompt)
    if len(messages) == 1:
        return str(messages[0].get("content", ""))
    return "\n\n".join(f"{message.get('role')}: {message.get('content')}" for message in messages)
