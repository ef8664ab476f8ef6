"""What a row asks, as plain text."""

from r1cli.row import Row, messages_of


def prompt_text(row: Row) -> str:
    """What the user wrote last: the prompt, or the text of its last user message; "" when there is none."""
    for message in reversed(messages_of(row.get("prompt") or "")):
        if message.get("role") == "user":
            content = message.get("content") or ""
            return content if isinstance(content, str) else "\n".join(str(part.get("text") or "") for part in content)
    return ""
