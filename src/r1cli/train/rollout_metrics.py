"""What a rollout looked like: rewards, lengths and how many groups carry a signal; the same figures on every process."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from r1cli.row import Row


def rollout_metrics(accelerator: Any, rows: Sequence[Row], lengths: Sequence[int], group_size: int) -> dict[str, float]:
    """Means over all completions of all processes.

    reward, reward_min, reward_max, reward/<name> (rows where it applies), completion_length (tokens), truncated (share cut at the
    limit), signal_groups (share of groups whose rewards differ), tokens (sum).
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
    table = torch.tensor(list(sums.values()), dtype=torch.float64, device=accelerator.device)
    totals = accelerator.reduce(table, "sum").tolist()
    means = {name: total / count for name, (total, count) in zip(sums, totals, strict=True) if count}
    return {"reward_min": lowest, "reward_max": highest, **means}
