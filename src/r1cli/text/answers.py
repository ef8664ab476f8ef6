"""Find the answer a completion commits to."""

from r1cli.text.think import split


def last_answer(completion: str) -> str | None:
    parts = split(completion)
    if parts.answer is not None:
        return parts.answer
    at = parts.rest.rfind("\\boxed{")
    return parts.rest[at + 7 :].partition("}")[0] if at >= 0 else None
