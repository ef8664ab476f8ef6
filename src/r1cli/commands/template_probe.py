"""What a chat template writes around an assistant's text, found by having it render a conversation."""

from typing import Any

from r1cli.text.templates import CLOSE, OPEN

SAID = "probe of what is said"


def written_before(tokenizer: Any) -> tuple[str, str]:
    """(what the chat template ends a prompt with, what it writes between that and an assistant's text), without blanks and reasoning tags.

    The second is "" where it writes nothing, as most do, or where that cannot be told. Reasoning does not count: templates open it in
    prompts alone (DeepSeek-R1) or close an empty one in the last turn (Qwen 3), and rows bring their own.
    """
    asked = [{"role": "user", "content": "a"}]
    without, prompt, turns = (
        rendered(tokenizer, asked),
        rendered(tokenizer, asked, add_generation_prompt=True),
        rendered(tokenizer, [*asked, {"role": "assistant", "content": SAID}]),
    )
    if not (turns.count(SAID) == 1 and turns.startswith(without) and prompt.startswith(without)):
        return "", ""
    before = turns.removeprefix(without).partition(SAID)[0]
    opening, before = (text.replace(OPEN, "").replace(CLOSE, "").strip() for text in (prompt.removeprefix(without), before))
    return opening, "" if opening.startswith(before) else before.removeprefix(opening).strip()


def rendered(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
    """What the chat template makes of messages; "" without one, or where it refuses them: the renderer says so where it matters."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    from jinja2.exceptions import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except (TemplateError, KeyError, TypeError):
        return ""
