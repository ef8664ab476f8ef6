"""How a row's prompt becomes the text, and the tokens, that a model sees.

    chat      the tokenizer's chat template with a generation prompt
    boxed     the same, the last user message followed by the sentence the R1 model card asks for
    r1-zero   the template of DeepSeek-R1-Zero (arXiv 2501.12948, Table 1): plain text for a base model
    raw       the prompt as it is
    FILE      the text of a file in which `{prompt}` stands for the prompt (nothing else in braces means anything)

A template may open the reasoning: "<think>" at the end of the prompt, which the completion then lacks. `think_prefix` is what was opened;
rows carry it, because a format reward that looks for the opening tag in the completion would otherwise be 0 for ever.
"""

from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.row import Message, Prompt, messages_of

CHAT_TEMPLATES = ("chat", "boxed")
TEMPLATES = (*CHAT_TEMPLATES, "r1-zero", "raw")
OPEN, CLOSE = "<think>", "</think>"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first thinks about "
    "the reasoning process in the mind and then provides the user with the answer. The reasoning process and answer are enclosed within "
    "<think>...</think> and <answer>...</answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here "
    "</answer>. User: {prompt}. Assistant:"
)
SLOT = "{prompt}"


class PromptRenderer:
    """Renders prompts for one tokenizer and one template.

    think_prefix (attribute): what the rendered prompt has already opened of the completion, such as "<think>\\n"; "" if nothing.

    Raises `R1Error` (exit 2): a tokenizer without a chat template, an unknown template, `system` with a template that has no place for it.
    """

    def __init__(self, tokenizer: Any, *, template: str = "chat", system: str | None = None, think_prefix: bool = False) -> None:
        self._tokenizer = tokenizer
        self.template = template
        self._system = system
        self._is_chat = template in CHAT_TEMPLATES
        self._frame = check_template(template, system)
        if self._is_chat and not getattr(tokenizer, "chat_template", None):
            raise R1Error(
                "the model's tokenizer has no chat template",
                code=Exit.USAGE,
                hint="a base model takes --template r1-zero, raw, or a file with {prompt} in it",
            )
        self.think_prefix = opened(self._ending())
        self._opening = ""
        if think_prefix and not self.think_prefix:
            self.think_prefix = OPEN + "\n"
            gap = "" if self._is_chat else " " if template == "r1-zero" else "\n"
            self._opening = gap + self.think_prefix
        self._bos = _bos_of(tokenizer)

    def text(self, prompt: Prompt) -> str:
        """The text of a prompt (a string or a list of messages), up to where the completion starts; without a BOS the tokenizer adds."""
        if self._is_chat:
            return self._chat(self._messages(prompt), generation=True) + self._opening
        question = _only_question(prompt, self.template)
        return self._frame.replace(SLOT, question) + self._opening

    def ids(self, prompt: Prompt) -> list[int]:
        """The tokens of `text`. A chat template writes its own BOS; for plain text one is added if the tokenizer would, never two."""
        text = self.text(prompt)
        ids = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        if not self._is_chat and self._bos is not None and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def _messages(self, prompt: Prompt) -> list[Message]:
        messages = messages_of(prompt)
        if not all(isinstance(m, dict) and isinstance(m.get("role"), str) and m.get("content") is not None for m in messages):
            raise R1Error(
                "a message of the prompt lacks `role` or `content`", hint='write {"role": "user", "content": "..."}', code=Exit.USAGE
            )
        if not messages or messages[-1].get("role") == "assistant":
            raise R1Error("a prompt must end with a message the model answers", hint="remove the last assistant message", code=Exit.USAGE)
        if self._system is not None:
            if messages[0].get("role") == "system":
                raise R1Error(
                    "the prompt has a system message of its own, and --system gives another",
                    hint="leave out --system, or remove the message",
                    code=Exit.USAGE,
                )
            messages = [{"role": "system", "content": self._system}, *messages]
        if self.template == "boxed":
            last = messages[-1]
            messages = [*messages[:-1], {**last, "content": f"{last['content']}\n{BOXED}"}]
        return messages

    def _chat(self, messages: list[Message], *, generation: bool) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
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


def opened(ending: str) -> str:
    """The open reasoning block at the end of a prompt: "<think>\\n" of "assistant\\n<think>\\n", "" when none is open."""
    _, tag, rest = ending.rpartition(OPEN)
    return tag + rest if tag and CLOSE not in rest else ""


def check_template(template: str, system: str | None = None) -> str:
    """The text around {prompt} of a plain-text template, "" for the chat ones; needs no tokenizer, so a mistake is found before a model
    is loaded. Raises `R1Error` (exit 2): an unknown template, a file without {prompt}, a system message where there is no place for it.
    """
    if template in CHAT_TEMPLATES:
        return ""
    if system is not None:
        raise R1Error(
            f"a system message has no place in template `{template}`",
            code=Exit.USAGE,
            hint="write it into the template, or take --template chat",
        )
    if template == "raw":
        return SLOT
    if template == "r1-zero":
        return R1_ZERO
    path = Path(template).expanduser()
    if not path.is_file():
        raise R1Error(f"no template named `{template}`, and no such file", hint=nearest(template, TEMPLATES), code=Exit.USAGE)
    frame = path.read_text(encoding="utf-8").removesuffix("\n")  # the newline an editor leaves at the end of a file
    if SLOT not in frame:
        raise R1Error(f"template `{template}` has no {SLOT} in it", hint=f"write {SLOT} where the prompt belongs", code=Exit.USAGE)
    return frame


def _only_question(prompt: Prompt, template: str) -> str:
    """The text of a prompt that is a string or one user message: all that a plain-text template can take."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0].get("role") == "user" and isinstance(prompt[0].get("content"), str):
        return prompt[0]["content"]
    roles = ", ".join(str(message.get("role")) for message in prompt)
    raise R1Error(
        f"template `{template}` takes one question, the prompt is a conversation ({roles})", hint="take --template chat", code=Exit.USAGE
    )


def _bos_of(tokenizer: Any) -> int | None:
    """The BOS token, if the tokenizer puts one before plain text by itself."""
    bos = getattr(tokenizer, "bos_token_id", None)
    return bos if bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos] else None
