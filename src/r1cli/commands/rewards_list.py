"""`r1 rewards`: every reward with its rule, options and an example, as text for people or one JSON object."""

import json
from typing import Any

from r1cli.guard import Context
from r1cli.io.stream import claim_stdout
from r1cli.rewards.registry import kinds
from r1cli.rewards.reward import RewardKind
from r1cli.settings import RewardsSettings

HEAD = """--rewards NAME[=WEIGHT][=WORD][:OPTION=VALUE]...,...
A row's `reward` is the sum of weight x reward; a reward that is null counts nothing."""


def run(settings: RewardsSettings, context: Context) -> None:
    """Run the command."""
    from r1cli.rewards.user import USER

    listed = [*kinds(), USER]
    if settings.json:
        text = json.dumps({"rewards": [_described(kind) for kind in listed]}, ensure_ascii=False, allow_nan=False)
    else:
        text = "\n\n".join([HEAD, *map(_paragraph, listed)])
    claim_stdout().write(text + "\n")


def _paragraph(kind: RewardKind) -> str:
    lines = [f"{kind.name}: {kind.summary}", f"    formula  {kind.formula}", f"    reads    {', '.join(kind.fields)}"]
    for option in kind.options:
        words = f" ({', '.join(option.choices)})" if option.choices else ""
        main = ", the main option" if option.name == kind.mode else ""
        lines.append(f"    option   {option.name}={_plain(option.default)}{words}{main}: {option.help}")
    return "\n".join([*lines, f"    example  --rewards {kind.example}"])


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def _described(kind: RewardKind) -> dict[str, Any]:
    options = [
        {
            "name": o.name,
            "type": o.kind.__name__,
            "default": o.default,
            "choices": list(o.choices),
            "help": o.help,
            "main": o.name == kind.mode,
        }
        for o in kind.options
    ]
    return {
        "name": kind.name, "summary": kind.summary, "formula": kind.formula, "fields": list(kind.fields), "options": options,
        "maximum": kind.maximum, "example": kind.example,
    }  # fmt: skip
