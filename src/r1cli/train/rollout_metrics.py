"""What a rollout looked like: rewards, lengths and how many groups carry a signal; the same figures on every process."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from r1cli.row import Row


def rollout_metrics(
    accelerator: Any, rows: Sequence[Row], lengths: Sequence[int], group_size: int, preferences: Sequence[str] = ()
) -> dict[str, float]:
    """Means over all completions of all processes.

    reward, reward_min, reward_max, reward/<name> (rows where it applies), completion_length (tokens), truncated (share cut at the
    limit), signal_groups (share of groups whose rewards differ), tokens (sum). For each of `preferences`: length/<name> (tokens of the
    completions it scored), length_correlation/<name> (of score and tokens, each less its group's mean: what the advantage can follow).
    """
    rewards = [row["reward"] for row in rows]
    ends = torch.tensor([min(rewards, default=math.inf), -max(rewards, default=-math.inf)], dtype=torch.float64, device=accelerator.device)
    lowest, highest = (accelerator.gather(ends).view(-1, 2).amin(dim=0) * torch.tensor([1.0, -1.0], device=ends.device)).tolist()
    names = sorted({name for row in rows for name in row["rewards"]})
    if accelerator.num_processes > 1:  # a process may have no rows at all
        names = sorted(set(gather_object(names)))
    groups = [rows[start : start + group_size] for start in range(0, len(rows), group_size)]
    sums: dict[str, tuple[float, float]] = {
        "reward": (sum(rewards), len(rows)),
        "completion_length": (sum(lengths), len(rows)),
        "truncated": (sum(row["finish_reason"] == "length" for row in rows), len(rows)),
        "signal_groups": (sum(len({row["reward"] for row in group}) > 1 for group in groups), len(groups)),
        "tokens": (sum(lengths), 1.0 / accelerator.num_processes),
    }
    for name in names:
        values = [row["rewards"][name] for row in rows if row["rewards"].get(name) is not None]
        sums[f"reward/{name}"] = (sum(values), len(values))
    for name in preferences:
        applies = [row["rewards"].get(name) is not None for row in rows]
        sums[f"length/{name}"] = (sum(n for n, scored in zip(lengths, applies, strict=True) if scored), sum(applies))
        sums |= {f"{name}/{part}": (total, 1.0) for part, total in _spread(rows, lengths, group_size, name).items()}
    table = torch.tensor(list(sums.values()), dtype=torch.float64, device=accelerator.device)
    totals = accelerator.reduce(table, "sum").tolist()
    means = {name: total / count for name, (total, count) in zip(sums, totals, strict=True) if count}
    for name in preferences:
        xx, yy, xy = (means.pop(f"{name}/{part}") for part in ("xx", "yy", "xy"))
        if xx * yy > 0:
            means[f"length_correlation/{name}"] = xy / math.sqrt(xx * yy)
    return {"reward_min": lowest, "reward_max": highest, **means}


def _spread(rows: Sequence[Row], lengths: Sequence[int], group_size: int, name: str) -> dict[str, float]:
    """Sums of squares and products of tokens (x) and scores (y), both less the mean of their group."""
    found = {"xx": 0.0, "yy": 0.0, "xy": 0.0}
    for start in range(0, len(rows), group_size):
        group = zip(lengths[start : start + group_size], rows[start : start + group_size], strict=True)
        pairs = [(float(length), row["rewards"][name]) for length, row in group if row["rewards"].get(name) is not None]
        if len(pairs) < 2:
            continue
        x_mean, y_mean = (math.fsum(values) / len(pairs) for values in zip(*pairs, strict=True))
        found["xx"] += math.fsum((x - x_mean) ** 2 for x, _ in pairs)
        found["yy"] += math.fsum((y - y_mean) ** 2 for _, y in pairs)
        found["xy"] += math.fsum((x - x_mean) * (y - y_mean) for x, y in pairs)
    return found
