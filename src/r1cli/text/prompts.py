"""How a row's prompt becomes the text, and the tokens, that a model sees. The templates are in `templates.py`.

A template may open the reasoning: "<think>" at the end of the prompt, which the completion then lacks. `think_prefix` is what was opened;
rows carry it, because a format reward that looks for the opening tag in the completion would otherwise be 0 for ever.

Examples (few-shot) stand before the prompt, in the form the prompt itself has: turns of the chat, or filled-in copies of a plain template.
What the assistant of an example says never passes through the chat template: templates that strip `<think>` from earlier turns would take
away what the example is there for.
"""

from collections.abc import Sequence
from typing import Any

from r1cli import clock
from r1cli.errors import Exit, R1Error
from r1cli.row import Message, Prompt, messages_of, not_text
from r1cli.text.templates import BOXED, CHAT_TEMPLATES, OPEN, REQUESTS, SLOT, check_template, closed, opened

__all__ = ["BOXED", "Example", "PromptRenderer", "WordRenderer", "opened"]

TEXT_FIX = "write the content as one text, or leave the row out with --skip-bad"
HALF_PAIR_FIX = "mend the text, or leave the row out with --skip-bad"
Example = tuple[Prompt, str]
"""(prompt, what the assistant answers, its reasoning included)"""


class PromptRenderer:
    """Renders prompts for one tokenizer and one template.

    examples: candidates, of which the first `shots` that are not the prompt itself stand before each prompt
    think_prefix (attribute): what the rendered prompt has already opened of the completion, such as "<think>\\n"; "" if nothing.
    closed_think (attribute): the reasoning that the rendered prompt has already closed, as "<think>\\n\\n</think>\\n\\n"; "" if none.

    Raises `R1Error` (exit 2): a tokenizer without a chat template, an unknown template, `system` with a template that has no place for it.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str = "chat",
        system: str | None = None,
        think_prefix: bool = False,
        examples: Sequence[Example] = (),
        shots: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.template = template
        self._system = system
        self._is_chat = template in CHAT_TEMPLATES
        self._time = clock.for_template(getattr(tokenizer, "chat_template", None))
        self._frame = check_template(template, system)
        self._examples, self._shots = list(examples), len(examples) if shots is None else shots
        if self._is_chat and not getattr(tokenizer, "chat_template", None):
            raise R1Error(
                "the model's tokenizer has no chat template",
                code=Exit.USAGE,
                hint="a base model takes --template r1-zero, raw, or a file with {prompt} in it",
            )
        ending = self._ending()
        self.think_prefix, self.closed_think = opened(ending), "" if think_prefix else closed(ending)
        self._opening = ""
        if think_prefix and not self.think_prefix:
            self.think_prefix = OPEN + "\n"
            gap = "" if self._is_chat else " " if template == "r1-zero" else "\n"
            self._opening = gap + self.think_prefix
        self._bos = _bos_of(tokenizer)

    def text(self, prompt: Prompt) -> str:
        """The text of a prompt (a string or a list of messages), up to where the completion starts; without a BOS the tokenizer adds."""
        chosen = chosen_examples(self._examples, prompt, self._shots)
        if not self._is_chat:
            return filled(self._frame, prompt, self.template, chosen) + self._opening
        messages, answers = conversation(prompt, self.template, self._system, chosen)
        text = self._chat(messages, generation=True)
        for place, answer in enumerate(answers):
            if text.count(_mark(place)) != 1:
                raise R1Error(
                    "the chat template does not show earlier assistant turns: examples have no place in it",
                    code=Exit.USAGE,
                    hint="leave out --few-shot, or take a plain-text template",
                )
            text = text.replace(_mark(place), answer)
        return text + self._opening

    def ids(self, prompt: Prompt) -> list[int]:
        """The tokens of `text`. A chat template writes its own BOS; for plain text one is added if the tokenizer would, never two.

        Raises `R1Error` (exit 2) for text with half of a surrogate pair, which tokenizers cannot read.
        """
        text = self.text(prompt)
        place = half_pair(text)
        if place is not None:
            raise R1Error(f"the prompt holds {place}", hint=HALF_PAIR_FIX, code=Exit.USAGE)
        ids = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        if not self._is_chat and self._bos is not None and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def _chat(self, messages: list[Message], *, generation: bool) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation, **self._time)
        except (TemplateError, KeyError, TypeError) as error:
            raise R1Error(
                f"the chat template refuses the prompt: {error}",
                code=Exit.USAGE,
                hint="some templates know no system role, or want user and assistant to alternate",
            ) from error

    def _ending(self) -> str:
        """What the template puts between the prompt and the completion."""
        if not self._is_chat:
            return self._frame.rpartition(SLOT)[2]
        probe = [{"role": "user", "content": "?"}]
        whole, without = self._chat(probe, generation=True), self._chat(probe, generation=False)
        return whole.removeprefix(without)


class WordRenderer:
    """Prompts for a server that renders and cuts them itself: messages for the chat templates, text for the plain ones.

    think_prefix (attribute): what a plain template opens. A server's chat template opens what it likes; nobody is told.
    """

    def __init__(
        self,
        *,
        template: str = "chat",
        system: str | None = None,
        think_prefix: bool = False,
        examples: Sequence[Example] = (),
        shots: int | None = None,
    ) -> None:
        self.template = template
        self._system = system
        self._frame = check_template(template, system)
        self._examples, self._shots = list(examples), len(examples) if shots is None else shots
        self.think_prefix = opened(self._frame.rpartition(SLOT)[2])
        self._opening = ""
        if think_prefix and template in CHAT_TEMPLATES:
            raise R1Error(
                "--think-prefix needs the model's chat template, and the server keeps it",
                code=Exit.USAGE,
                hint="--model FOLDER with the model's tokenizer, or leave out --think-prefix",
            )
        if think_prefix and not self.think_prefix:
            self.think_prefix = OPEN + "\n"
            self._opening = (" " if template == "r1-zero" else "\n") + self.think_prefix

    def words(self, prompt: Prompt) -> str | list[Message]:
        """The messages or the text to send."""
        chosen = chosen_examples(self._examples, prompt, self._shots)
        if self.template not in CHAT_TEMPLATES:
            return filled(self._frame, prompt, self.template, chosen) + self._opening
        messages, answers = conversation(prompt, self.template, self._system, chosen)
        said = {_mark(place): answer for place, answer in enumerate(answers)}
        return [{**message, "content": said.get(message["content"], message["content"])} for message in messages]


def half_pair(text: str) -> str | None:
    """What and where the first half of a surrogate pair is, in words; None when there is none. JSON may hold one, UTF-8 may not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair (\\u{ord(text[error.start]):04x}, character {error.start + 1}), which is not text"
    return None


def chosen_examples(examples: Sequence[Example], prompt: Prompt, shots: int) -> list[Example]:
    """The first `shots` examples whose question is not the prompt: else the prompt's own answer would stand before it."""
    own = messages_of(prompt)[-1:]
    return [example for example in examples if messages_of(example[0])[-1:] != own][:shots]


def _check_message(place: int, message: Any) -> None:
    """Refuse (`R1Error`, exit 2) what is no message of a prompt; `place` counts from 1."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        what, hint = "lacks `role`", 'write {"role": "user", "content": "..."}'
    elif (found := not_text(message.get("content"))) is not None:
        what, hint = f"has a `content` with {found}, and r1 reads text", TEXT_FIX
    elif message.get("content") is not None:
        return
    elif any(message.get(name) for name in ("tool_calls", "function_call")):
        what, hint = (
            "calls a tool and has no `content`: tool calls are not supported",
            "write the calls into `content`, or leave the row out",
        )
    else:
        what, hint = "lacks `content`", 'write {"role": "user", "content": "..."}'
    raise R1Error(f"message {place} of the prompt {what}", hint=hint, code=Exit.USAGE)


def conversation(prompt: Prompt, template: str, system: str | None, examples: Sequence[Example]) -> tuple[list[Message], list[str]]:
    """(messages, what the assistant of each example says). In the messages a mark stands for what it says: see the top of the file."""
    messages = messages_of(prompt)
    for place, message in enumerate(messages, 1):
        _check_message(place, message)
    if not messages or messages[-1].get("role") == "assistant":
        raise R1Error("a prompt must end with a message the model answers", hint="remove the last assistant message", code=Exit.USAGE)
    own_system = [message for message in messages[:1] if message.get("role") == "system"]
    if system is not None:
        if own_system:
            raise R1Error(
                "the prompt has a system message of its own, and --system gives another",
                hint="leave out --system, or remove the message",
                code=Exit.USAGE,
            )
        own_system = [{"role": "system", "content": system}]
    else:
        messages = messages[len(own_system) :]
    shown: list[Message] = []
    for place, (question, _) in enumerate(examples):
        asked = [message for message in messages_of(question) if message.get("role") != "system"]
        shown += [*_asked(asked, template), {"role": "assistant", "content": _mark(place)}]
    return [*own_system, *shown, *_asked(messages, template)], [answer for _, answer in examples]


def _asked(messages: list[Message], template: str) -> list[Message]:
    """The messages with what the template asks for behind the last one of the user, whatever follows it (what a tool says).

    Raises `R1Error` (exit 2) when none of them is the user's.
    """
    if template not in REQUESTS:
        return messages
    place = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=None)
    if place is None:
        raise R1Error(
            f"the prompt has no `user` message, and template `{template}` puts its request behind the last one",
            hint="give it a user message, or take --template chat",
            code=Exit.USAGE,
        )
    asked = {**messages[place], "content": f"{messages[place]['content']}\n{REQUESTS[template]}"}
    return [*messages[:place], asked, *messages[place + 1 :]]


def filled(frame: str, prompt: Prompt, template: str, examples: Sequence[Example]) -> str:
    """A plain-text template with the examples and then the prompt in it."""
    gap = " " if template == "r1-zero" else "" if frame[-1:].isspace() else "\n"
    already = opened(frame.rpartition(SLOT)[2])
    shown = [
        frame.replace(SLOT, _only_question(question, template)) + ("" if already else gap) + answer.removeprefix(already)
        for question, answer in examples
    ]
    return "\n\n".join([*shown, frame.replace(SLOT, _only_question(prompt, template))])


def _mark(place: int) -> str:
    return f"[[r1 example {place}]]"


def _only_question(prompt: Prompt, template: str) -> str:
    """The text of a prompt that is a string or one user message: all that a plain-text template can take."""
    if isinstance(prompt, str):
        return prompt
    messages = messages_of(prompt)
    for place, message in enumerate(messages, 1):
        _check_message(place, message)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    roles = ", ".join(message["role"] for message in messages)
    raise R1Error(
        f"template `{template}` takes one question, the prompt is a conversation ({roles})", hint="take --template chat", code=Exit.USAGE
    )


def _bos_of(tokenizer: Any) -> int | None:
    """The BOS token, if the tokenizer puts one before plain text by itself."""
    bos = getattr(tokenizer, "bos_token_id", None)
    return bos if bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos] else None
