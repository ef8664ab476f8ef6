"""Sets of rows: a row's field `set` names the one it belongs to (`helpful`, `safety`, `reasoning`), and a reward may be for some sets only.

    --rewards accuracy:set=reasoning,format        --reward-model helpful=CKPT:set=helpful+general

A reward without sets is for every row. A reward with sets is for the rows of these sets; a row that names no set is in none of them.
Where a reward does not apply it is null: it takes no part in the row's sum, nor in the reward's mean.

Source: DeepSeek-R1, section 2.3.4 and the supplement: each general prompt is in the helpful or in the safety data set, and gets its reward.
"""

from r1cli.errors import Exit, R1Error
from r1cli.row import Row, require

Sets = tuple[str, ...]


def read_sets(text: str, reward: str) -> Sets:
    """`helpful+general` as names. Raises `R1Error` (exit 2) when one is empty."""
    names = tuple(text.split("+"))
    if not all(names):
        raise R1Error(f"option `set` of reward `{reward}` cannot be `{text}`", hint=f"{reward}:set=helpful+general", code=Exit.USAGE)
    return names


def applies(sets: Sets, row: Row) -> bool:
    """Whether a reward with these sets is for this row. Raises `R1Error` (exit 2) for a `set` that is no string."""
    if not sets:
        return True
    return row.get("set") is not None and require(row, "set", str) in sets
