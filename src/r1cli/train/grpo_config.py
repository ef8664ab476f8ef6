"""What the GRPO algorithm is told: numbers, words and the order of prompts. The same names as the flags of `r1 grpo`.

A step is one optimizer update on `prompts_per_step` x `group_size` completions, as the R1 paper counts; a rollout draws the completions of
`updates_per_rollout` steps and serves them `epochs_per_rollout` times.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from r1cli.row import Row
from r1cli.train.batches import PACK_LENGTH
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.order import next_rows
from r1cli.train.shares import shared_rows

Switches = tuple[tuple[int, int], ...]  # (from this step on, value), the first from 0


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """The fields of `GrpoSettings` that the algorithm needs, under the same names.

    max_completion_length: as switches, see `value_at`. dynamic_sampling: name of the reward that a group is judged by, None for off.
    preferences: names of the rewards that are reward models.
    """

    steps: int
    prompts_per_step: int
    group_size: int
    max_completion_length: Switches
    microbatch_tokens: int
    seed: int
    pad_id: int
    optimiser: OptimiserConfig
    updates_per_rollout: int = 1
    epochs_per_rollout: int = 1
    loss: str = "grpo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    clip_cap: float | None = None
    beta: float = 0.001
    kl: str = "k3"
    kl_correction: bool = False
    entropy_coef: float = 0.0
    reference_every: int = 400
    reference_mix: float = 1.0
    advantage: str = "group"
    mask_truncated: bool = True
    importance: str = "token"
    importance_rule: str = "truncate"
    importance_floor: float = 0.0
    importance_cap: float = 2.0
    dynamic_sampling: str | None = None
    max_refills: int = 10
    rollout_lag: int = 0
    save_every: int = 0
    preferences: tuple[str, ...] = ()
    pack_length: int = PACK_LENGTH
    alone_beyond: int | None = None

    def parts(self, step: int) -> int:
        """How many steps' worth of prompts the rollout that begins at `step` draws: fewer at the end of the run."""
        left = -(-(self.steps - step) // self.epochs_per_rollout)
        return min(self.updates_per_rollout, left)


def value_at(switches: Switches, step: int) -> int:
    """The value in force once `step` steps are done: `((0, 32768), (8200, 65536))` is 65536 from step 8200 on."""
    return [value for start, value in switches if start <= step][-1]


@dataclass(frozen=True)
class Prompts:
    """All prompt rows, in the stages in which they join: (from this step on, rows), the first from 0.

    shares: of the prompts of a rollout, for each stage, in proportion to those that have joined; None: every row counts the same
    """

    stages: Sequence[tuple[int, Sequence[Row]]]
    shares: Sequence[float] | None = None

    def draw(self, step: int, taken: int, wanted: int, seed: int) -> list[tuple[int, Row]]:
        """The next `wanted` prompts of the stage in force at `step`, of which `taken` were taken before, each behind the number of its
        source (0 without shares).

        An id that comes again in the same draw (there are fewer than `wanted`, or a row is there twice) becomes `ID#2`: completions are
        seeded by id.
        """
        joined = [rows for start, rows in self.stages if start <= step]
        name = seed if len(joined) == 1 else f"{seed}/stage {len(joined) - 1}"
        if self.shares is None:
            pool = [row for rows in joined for row in rows]
            chosen = [(0, row) for row in next_rows(len(pool), taken, wanted, name)]
            joined = [pool]
        else:
            counts = [len(rows) for rows in joined]
            chosen = shared_rows(counts, self.shares[: len(joined)], taken, wanted, str(name))
        seen: Counter[str] = Counter()
        found = []
        for source, place in chosen:
            row = joined[source][place]
            name = str(row["id"])
            seen[name] += 1
            found.append((source, row if seen[name] == 1 else row.with_fields(id=f"{name}#{seen[name]}")))
        return found

    def stage(self, step: int) -> int:
        """The number of the stage in force."""
        return sum(start <= step for start, _ in self.stages) - 1
