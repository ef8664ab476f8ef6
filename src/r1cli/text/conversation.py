"""SFT rows -> the token sequences to learn, each exactly as it would be sampled.

Every assistant turn becomes a pair (prompt tokens, completion tokens): the conversation before it rendered with the generation prompt, and
what the assistant wrote followed by the end-of-turn token. The assistant's own text never passes through the chat template, because some
templates strip `<think>` from assistant turns and the reasoning would not be learnt.

Reasoning that stands beside the content, as DeepSeek's and vLLM's servers return it, is written into it; so is the `think_prefix` of a
sampled row, what its prompt had opened. Tool calls are refused: they have no one text form, and a row that loses them teaches an empty
answer.
"""

from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.row import Message, Prompt, Row, not_text, require, with_text
from r1cli.text.behind import ids_behind
from r1cli.text.prompts import HALF_PAIR_FIX, TEXT_FIX, PromptRenderer, half_pair
from r1cli.text.row_form import COMPLETION, MESSAGES, NOTHING, bad_row, check_nothing_lost, form_of, is_drawn
from r1cli.text.templates import CLOSE, OPEN
from r1cli.text.think import opened_by, split

Turn = tuple[list[int], list[int]]
TOOL_CALLS = ("tool_calls", "function_call")  # of a message; the second is the older form
REASONING = ("reasoning_content", "reasoning")  # DeepSeek, vLLM
_MESSAGES_FIX = (
    "TRL's conversations are rows with `messages` here: jq -c '.messages = .prompt + .completion | del(.prompt, .completion)'; "
    "--loss-on completion learns the last answer alone"
)
_TOOLS_FIX = "render the calls into `content` and take the fields out, or leave such rows out with --skip-bad"


def turns(
    row: Row, renderer: PromptRenderer, tokenizer: Any, end_id: int, *, last_only: bool = False, beyond: frozenset[int] = frozenset()
) -> list[Turn]:
    """The (prompt ids, completion ids) of each assistant turn of a row with `messages`, or of a row with `prompt` and `completion`.

    The completion ends with `end_id`. When the prompt already opens the reasoning (a template that writes `<think>`), that opening is not
    repeated. A prompt without a token (`--template raw`, a tokenizer without BOS) has nothing to predict the first token from: that token
    is the prompt then.

    last_only: as for `answers`; beyond: tokens that the model has no embedding for. Raises `R1Error` (exit 2) naming the row when there is
    nothing to learn, when the template refuses it, or when it holds such a token.
    """
    learnt = []
    for prompt, text in answers(row, last_only=last_only):
        before = prompt_ids(row, prompt, renderer)
        text = _behind_the_prompt(row, prompt, text, renderer)
        ids = ids_behind(tokenizer, before, text)
        if not before and not ids:
            raise bad_row(row, "it is empty: prompt and answer have no token", "leave the row out")
        check_known(row, [*before, *ids], tokenizer, beyond)
        start = 0 if before else 1
        learnt.append((before or ids[:start], [*ids[start:], end_id]))
    return learnt


def _behind_the_prompt(row: Row, prompt: Prompt, text: str, renderer: PromptRenderer) -> str:
    """What the assistant wrote, without what the rendered prompt has opened of it."""
    if renderer.think_prefix and text.startswith(renderer.think_prefix):
        return text.removeprefix(renderer.think_prefix)
    prefix = opening_of(row)  # of another template it may have other blanks; and a plain prompt may end with it
    if prefix and (renderer.think_prefix or renderer.text(prompt).rstrip().endswith(prefix.rstrip())):
        return text.removeprefix(prefix)
    return text


def opening_of(row: Row) -> str:
    """The reasoning tag that the prompt of a row with `prompt` and `completion` had opened and `answers` puts back; "" if none.

    A completion that opens the reasoning by itself is not given the tag twice.
    """
    prefix, completion = row.get("think_prefix"), row.get("completion")
    if form_of(row) != COMPLETION or not opened_by(prefix) or not isinstance(completion, str) or completion.lstrip().startswith(OPEN):
        return ""
    return prefix if isinstance(prefix, str) else OPEN + "\n"


def prompt_ids(row: Row, prompt: Prompt, renderer: PromptRenderer) -> list[int]:
    """The tokens of a prompt of this row. Raises `R1Error` (exit 2) naming the row when the template refuses it."""
    try:
        return renderer.ids(prompt)
    except R1Error as error:  # the template does not know whose prompt it is
        raise bad_row(row, error.message, error.hint or "leave the row out") from error


def check_known(row: Row, ids: list[int], tokenizer: Any, beyond: frozenset[int]) -> None:
    """Refuse (`R1Error`, exit 2, naming the row) tokens that the model has no embedding for: `beyond`, none for most models."""
    unknown = beyond.intersection(ids) if beyond else beyond
    if unknown:
        name = f"`{tokenizer.convert_ids_to_tokens(min(unknown))}` ({min(unknown)})"
        raise bad_row(row, f"it holds the token {name}, which the model's embedding has no row for", "take it out of the row")


def answers(row: Row, *, last_only: bool = False) -> list[tuple[Any, str]]:
    """(what came before it, what the assistant wrote) for each assistant turn of a row that is to be learnt; with `last_only` the last one.

    Reasoning in a field of its own stands at the beginning of what the assistant wrote, in `<think>`, here and in what came before; and
    what the prompt had opened of a completion (`think_prefix`) stands before it.
    Raises `R1Error` (exit 2) naming the row: no such turn, tool calls, text that is none; with `last_only` a last turn not to be learnt.
    """
    if row.get("tools") not in NOTHING:
        raise bad_row(row, "it has a field `tools`, and r1 does not train tool calls", _TOOLS_FIX)
    form = form_of(row)
    if form == MESSAGES:
        check_nothing_lost(row, require(row, "messages", list))
        return _assistant_turns(row, last_only)
    if form == COMPLETION:
        if isinstance(row["completion"], list):
            fix = _MESSAGES_FIX if isinstance(row.get("prompt"), list) else "take its text: jq -c '.completion = .completion[0].content'"
            raise bad_row(row, "`completion` is a list of messages, and here it is a text", fix)
        prompt = require(row, "prompt", str, list)
        if isinstance(prompt, str):
            _check_text(row, "`prompt`", prompt)
        else:
            prompt = [_plain(row, f"message {place + 1} of `prompt`", message) for place, message in enumerate(prompt)]
        check_nothing_lost(row, prompt)
        text = completion_text(row)
        _check_text(row, "`completion`", text)
        return [(prompt, text)]
    found = ", ".join(name if value is not None else f"{name} (null)" for name, value in row.items())
    raise R1Error(
        f"{row.where}: row `{row.get('id')}` has neither `messages` nor `prompt` and `completion`; it has {found}",
        hint="rename a column with --map messages=COLUMN",
        code=Exit.USAGE,
    )


def completion_text(row: Row) -> str:
    """What the assistant wrote in a row with `prompt` and `completion`: what the prompt had opened, `reasoning_content`, the completion.

    The `reasoning_content` of a row that r1 drew is the prompt row's own: what r1 draws holds its reasoning.
    """
    completion = require(row, "completion", str)
    if not is_drawn(row):
        message = {"content": completion, "reasoning_content": row.get("reasoning_content")}
        completion = _with_reasoning(row, "the completion", message)["content"]
    return completion if completion.lstrip().startswith(OPEN) else opening_of(row) + completion


def _assistant_turns(row: Row, last_only: bool) -> list[tuple[Any, str]]:
    messages: list[Message] = []
    found: list[tuple[Any, str]] = []
    is_learnt = False  # of the newest one
    for place, given in enumerate(require(row, "messages", list)):
        message = _plain(row, f"message {place + 1}", given)
        if not isinstance(message, dict) or not isinstance(message.get("content"), str) or "role" not in message:
            fix = 'a message is {"role": "user", "content": "..."}'
            raise bad_row(row, f"message {place + 1} needs `role` and `content` (strings)", fix)
        if message["role"] == "assistant":
            if place == 0:
                raise bad_row(row, "it starts with an assistant message: there is no prompt to answer", "put the user's message first")
            if messages[-1]["role"] == "assistant":
                what = f"messages {place} and {place + 1} are both the assistant's: there is no prompt between them"
                raise bad_row(row, what, "join them into one message, or leave the row out with --skip-bad")
            is_learnt = _is_learnt(row, f"message {place + 1}", message)
            if is_learnt:
                found.append((messages[:place], message["content"]))
        messages.append(message)
    if not found:
        raise bad_row(row, "it has no assistant message to learn from", "leave the row out")
    if last_only and not is_learnt:  # an earlier one in its place would be learnt although nobody asked for it
        what = "its last assistant message is marked as not to be learnt, and --loss-on completion learns no other"
        raise bad_row(row, what, "leave the row out, or take --loss-on assistant")
    return found[-1:] if last_only else found


def _is_learnt(row: Row, name: str, message: Message) -> bool:
    """Whether an assistant message is to be learnt: not with `weight` 0 (OpenAI's form) or `train` false (axolotl's)."""
    weight, train = message.get("weight"), message.get("train")
    if weight not in (None, 0, 1) or train not in (None, False, True):
        raise bad_row(row, f"{name}: `weight` must be 0 or 1 and `train` a boolean", "r1 learns a message or does not")
    return weight != 0 and train is not False


def _plain(row: Row, name: str, message: Any) -> Any:
    """A message with the assistant's reasoning in its content; as it is when it is no message. `name` is what errors call it."""
    if not isinstance(message, dict):
        return message
    message, found = with_text(message), not_text(message.get("content"))
    if found is not None:
        raise bad_row(row, f"{name} has a `content` with {found}, and r1 reads text", TEXT_FIX)
    if message.get("role") == "assistant":
        for field in TOOL_CALLS:
            if message.get(field) not in NOTHING:
                raise bad_row(row, f"{name} has `{field}`, and r1 does not train tool calls", _TOOLS_FIX)
        message = _with_reasoning(row, name, message)
    if isinstance(message.get("content"), str):
        _check_text(row, f"{name}: `content`", message["content"])
    return message


def _with_reasoning(row: Row, name: str, message: Message) -> Message:
    """The message with `reasoning_content` or `reasoning` in front of its content, as `engines.openai_api` does for a server's answers.

    Reasoning that the content holds already, in tags, is not repeated; other reasoning beside such a content is refused. With no content
    the block stays open unless the row says that the answer was finished: it was cut, and the preflight counts it.
    """
    given = {field: message[field] for field in REASONING if message.get(field) not in NOTHING}
    for field, value in given.items():
        if not isinstance(value, str):
            raise bad_row(row, f"{name}: `{field}` must be a string, found {type(value).__name__}", "write the reasoning as one string")
    content = message.get("content")
    texts = {value.strip() for value in given.values()} - {""}
    if not texts or not isinstance(content, str | None):
        return message
    if len(texts) > 1:
        raise bad_row(row, f"{name}: {' and '.join(f'`{field}`' for field in given)} differ", "leave one of them out")
    reasoning, content = texts.pop(), content or ""
    if content.lstrip().startswith(OPEN) or CLOSE in content:
        if split(content).reasoning.strip() != reasoning:
            what = f"{name} has reasoning in `{next(iter(given))}` and other reasoning in `content`"
            raise bad_row(row, what, "write both into `content`, or leave one of them out")
    else:
        end = CLOSE if content or row.get("finish_reason") == "stop" else ""
        content = f"{OPEN}\n{reasoning}\n{end}" + (f"\n\n{content.lstrip()}" if content else "")
    kept = {field: value for field, value in message.items() if field not in REASONING}  # templates that read the field write it twice
    return {**kept, "content": content}


def _check_text(row: Row, name: str, text: str) -> None:
    place = half_pair(text)
    if place is not None:
        raise bad_row(row, f"{name} holds {place}", HALF_PAIR_FIX)
