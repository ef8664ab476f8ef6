"""How a prompt and a finished reply become the text that a reward model reads.

    own     the reward model's own chat template, as it was trained: [*prompt, assistant's reply], no generation prompt
    plain   prompt, blank line, reply, end of sequence: for models without a template, and only when asked for

Chat templates that take `<think>` out of assistant turns would hide the reasoning from a model that is to score the whole response. The
reply is therefore looked for in what the template made: when it is not there in full, it is put where the template wanted it.
"""

from typing import Any

from r1cli import clock
from r1cli.errors import Exit, R1Error
from r1cli.row import Message, Prompt, messages_of

Conversation = tuple[Prompt, str]
"""(prompt, what a reward model sees of the completion)"""
OWN, PLAIN = "own", "plain"
_MARK = "[[r1 reply]]"


class ReplyRenderer:
    """Renders (prompt, reply) for one reward model's tokenizer. Raises `R1Error` (exit 2) when it has no chat template and `own` is wanted.

    name: what messages call the model.
    """

    def __init__(self, tokenizer: Any, *, template: str = OWN, name: str = "the reward model") -> None:
        if template == OWN and not getattr(tokenizer, "chat_template", None):
            raise R1Error(
                f"{name} has no chat template to render prompts with",
                code=Exit.USAGE,
                hint="save the one it was trained with beside it (chat_template.jinja), or say :template=plain",
            )
        self._tokenizer, self._template, self._name = tokenizer, template, name

    def text(self, prompt: Prompt, reply: str) -> str:
        """The whole text, special tokens of the template included."""
        if self._template == PLAIN:
            return f"{_plain(prompt)}\n\n{reply}{self._tokenizer.eos_token or ''}"
        text = self._chat(prompt, reply)
        if reply.strip() in text:
            return text
        text = self._chat(prompt, _MARK)
        if text.count(_MARK) != 1:
            raise R1Error(
                f"the chat template of {self._name} does not show the reply",
                code=Exit.USAGE,
                hint="a reward model's template renders assistant turns; :template=plain goes without it",
            )
        return text.replace(_MARK, reply)

    def ids(self, prompt: Prompt, reply: str) -> list[int]:
        """The tokens of `text`. A chat template writes its own BOS; for plain text the tokenizer adds what it adds."""
        text = self.text(prompt, reply)
        return list(self._tokenizer(text, add_special_tokens=self._template == PLAIN)["input_ids"])

    def _chat(self, prompt: Prompt, reply: str) -> str:
        from jinja2.exceptions import TemplateError

        try:
            messages, now = turns((prompt, reply)), clock.for_template(self._tokenizer.chat_template)
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False, **now)
        except (TemplateError, KeyError, TypeError) as error:
            raise R1Error(
                f"the chat template of {self._name} refuses the conversation: {error}",
                code=Exit.USAGE,
                hint="some templates know no system role, or want user and assistant to alternate; :template=plain goes without it",
            ) from error


def turns(conversation: Conversation) -> list[Message]:
    """A conversation as chat messages."""
    prompt, reply = conversation
    return [*messages_of(prompt), {"role": "assistant", "content": reply}]


def _plain(prompt: Prompt) -> str:
    messages = messages_of(prompt)
    if len(messages) == 1:
        return str(messages[0].get("content"))
    return "\n\n".join(f"{message.get('role')}: {message.get('content')}" for message in messages)
