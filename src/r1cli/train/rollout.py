"""One rollout: prompts taken in order, sampled, scored, kept or thrown away, and given advantages.

Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): a group is kept iff some of its completions are right and some are wrong. Prompts
are drawn again until the rollout is full, a bounded number of times. Right and wrong are told by a reward such as accuracy and not by the
shaped sum: a format or length penalty makes rewards differ in a group that teaches nothing about the task.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.train.advantages import group_advantages
from r1cli.train.alarms import Memory
from r1cli.train.batches import Sample
from r1cli.train.clock import Clock
from r1cli.train.grpo_config import GrpoConfig, Prompts, value_at
from r1cli.train.progress import Ahead, Progress, Rollout, RolloutBatch
from r1cli.train.rollout_metrics import rollout_metrics

RIGHT = 1.0  # the score of a right completion in the reward that dynamic sampling looks at


class Interrupted(Exception):
    """The run was asked to end: what is finished is to be saved."""


class TooFewPrompts(R1Error):
    """Dynamic sampling gave up, in every process; the weights are as they were."""


@dataclass(frozen=True)
class Draw:
    """One call of the sampler: steps done before it, which refill of the rollout it is (0: none), most new tokens a completion."""

    step: int
    refill: int
    limit: int


@dataclass(slots=True)
class Hooks:
    """What the loop needs from outside.

    sample:   (prompt rows of this process, draw) -> rollouts, the completions of a prompt together and in the order of `sample`; it may
              return early, with fewer, once the run is asked to end
    score:    (rows, steps done) -> rows with `rewards` and `reward`, same order
    sync:     give the policy's weights to the sampler
    log:      (metrics record, scored rows with their advantages, what alarms remember) after every rollout, the record the same on every
              process; what it returns is raised once a checkpoint is saved. It may raise `Interrupted` in every process, before it has
              written anything: the run that goes on logs it then
    save:     (progress) when a checkpoint is due; after the last step it is the final model
    warn:     (text) something the user must know
    stopping: (seconds that the next piece of work may take) -> whether to end now; the same answer on every process
    rest:     the sampler is not needed until `sync`
    abandon:  make a `sample` that runs in another thread return early
    """

    sample: Callable[[list[Row], Draw], list[Rollout]]
    score: Callable[[list[Row], int], list[Row]]
    sync: Callable[[], None]
    log: Callable[[dict[str, Any], list[Row], Memory], R1Error | None]
    save: Callable[[Progress], None]
    warn: Callable[[str], None] = lambda text: None
    stopping: Callable[[float], bool] = lambda seconds: False
    rest: Callable[[], None] = lambda: None
    abandon: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Group:
    """The completions of one prompt; place: its number among all the prompts that the rollout has drawn, over all processes.

    source: of which source with a share the prompt is.
    """

    place: int
    rollouts: list[Rollout]
    rows: list[Row]
    source: int = 0


@dataclass(slots=True)
class _Kept:
    """All groups that this process has drawn and those that stay, the places of those of all processes, and how many all have drawn."""

    all: list[Group] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    drawn: int = 0

    @property
    def kept(self) -> int:
        return len(self.places)


def take_prompts(
    accelerator: Any, prompts: Prompts, progress: Progress, step: int, number: int, config: GrpoConfig
) -> tuple[list[Row], list[int]]:
    """The next `number` prompts of the stage in force at `step`, of them those of this process, and their sources. Counts them as taken."""
    stage = prompts.stage(step)
    taken = progress.taken.get(stage, 0)
    progress.taken[stage] = taken + number
    mine = prompts.draw(step, taken, number, config.seed)[accelerator.process_index :: accelerator.num_processes]
    return [row for _, row in mine], [source for source, _ in mine]


def draw_batch(
    accelerator: Any,
    prompts: Prompts,
    hooks: Hooks,
    config: GrpoConfig,
    progress: Progress,
    clock: Clock,
    ahead: Ahead | None = None,
) -> RolloutBatch:
    """The batch of the rollout that begins at `progress.step`; `ahead` is its first draw when it is there already.

    Raises `Interrupted` when the run is asked to end meanwhile. After any error its prompts count as not taken.
    """
    step = progress.step
    parts = config.parts(step)
    wanted = config.prompts_per_step * parts
    draw = Draw(step, 0, value_at(config.max_completion_length, step))
    found = _Kept()
    with _giving_back(progress):
        while True:
            if ahead is not None:
                draw = dataclasses.replace(draw, limit=ahead.limit)
                completions, sources, ahead = ahead.completions, ahead.sources, None
            else:
                number = wanted if draw.refill == 0 else _needed(wanted, found)
                mine, sources = take_prompts(accelerator, prompts, progress, step, number, config)
                completions = hooks.sample(mine, draw)
            clock.lap("sample")
            if hooks.stopping(0.0):
                raise Interrupted
            rows = hooks.score([completion.row for completion in completions], step)
            clock.lap("score")
            if hooks.stopping(0.0):  # a signal to all processes of a job may have ended what a reward had started: its score is no score
                raise Interrupted
            _keep(accelerator, found, groups_of(completions, rows, config.group_size), sources, config)
            if found.kept >= wanted or config.dynamic_sampling is None:
                break
            if draw.refill == config.max_refills:
                raise _too_few(step, wanted, found, config)
            draw = dataclasses.replace(draw, refill=draw.refill + 1)
    groups = _cut(found, wanted)
    samples, scored = with_advantages(accelerator, groups, config)
    figures = rollout_metrics(accelerator, *_everything(found), config.group_size, config.preferences)
    if config.dynamic_sampling:
        figures |= {"refills": float(draw.refill), "wasted": 1 - min(1.0, wanted / found.drawn)}
    of_samples = [] if prompts.shares is None else [group.source for group in groups for _ in group.rows]
    return RolloutBatch(step, parts, draw.limit, samples, scored, figures, sources=of_samples, seconds=clock.seconds)


def _everything(found: _Kept) -> tuple[list[Row], list[int]]:
    """The rows of all completions that this process has drawn, kept or not, and their tokens."""
    return (
        [row for group in found.all for row in group.rows],
        [len(rollout.completion_ids) for group in found.all for rollout in group.rollouts],
    )


@contextmanager
def _giving_back(progress: Progress) -> Iterator[None]:
    """After an error, the prompts that were taken meanwhile count as not taken."""
    taken = dict(progress.taken)
    try:
        yield
    except BaseException:
        progress.taken = taken
        raise


def _too_few(step: int, wanted: int, found: _Kept, config: GrpoConfig) -> TooFewPrompts:
    return TooFewPrompts(
        f"step {step + 1}: after {config.max_refills} refills only {found.kept} of {wanted} prompts "
        f"have right and wrong completions by `{config.dynamic_sampling}` ({found.drawn} were drawn; right is {RIGHT:g} or more)",
        hint="the prompts are too easy or too hard for this model: give others, raise --group-size or --max-refills, "
        "or leave out --dynamic-sampling",
    )


def _needed(wanted: int, found: _Kept) -> int:
    """Prompts to draw for those that are missing, at the rate at which groups were kept so far; a whole rollout at most."""
    missing = wanted - found.kept
    return min(wanted, -(-missing * found.drawn // found.kept)) if found.kept else wanted


def _keep(accelerator: Any, found: _Kept, groups: Sequence[Group], sources: Sequence[int], config: GrpoConfig) -> None:
    """Add the groups of a draw to what is kept, and count them over all processes."""
    processes = accelerator.num_processes
    for group, source in zip(groups, sources, strict=True):
        group.source = source
        group.place = found.drawn + group.place * processes + accelerator.process_index
    useful = [group for group in groups if config.dynamic_sampling is None or is_mixed(group.rows, config.dynamic_sampling)]
    found.all += groups
    found.groups += useful
    places = [group.place for group in useful]
    found.places += gather_object(places) if processes > 1 else places
    found.drawn += int(accelerator.reduce(torch.tensor(len(groups), device=accelerator.device), "sum"))


def groups_of(completions: Sequence[Rollout], rows: Sequence[Row], size: int) -> list[Group]:
    """Completions and their scored rows by prompt, `size` of each."""
    starts = range(0, len(rows), size)
    return [Group(number, list(completions[start : start + size]), list(rows[start : start + size])) for number, start in enumerate(starts)]


def is_mixed(rows: Sequence[Row], name: str) -> bool:
    """Whether some completions of a group are right and some are wrong by reward `name`.

    A group that this reward has nothing to say about (null throughout) is judged by whether its rewards differ.
    """
    scores = [row["rewards"][name] for row in rows if row["rewards"].get(name) is not None]
    if not scores:
        return len({row["reward"] for row in rows}) > 1
    return 0 < sum(score >= RIGHT for score in scores) < len(scores)


def _cut(found: _Kept, wanted: int) -> list[Group]:
    """This process's part of the first `wanted` kept groups, in the order in which they were drawn."""
    last = sorted(found.places)[:wanted][-1:]
    return [group for group in found.groups if group.place <= last[0]]


def with_advantages(accelerator: Any, groups: Sequence[Group], config: GrpoConfig) -> tuple[list[Sample], list[Row]]:
    """Samples to train on, and the rows with their `advantage` beside the reward (never over it)."""
    rewards = [[row["reward"] for row in group.rows] for group in groups]
    everyone = None
    if config.advantage == "batch" and accelerator.num_processes > 1:
        everyone = gather_object([reward for group in rewards for reward in group])
    advantages = group_advantages(rewards, config.advantage, everyone)
    samples: list[Sample] = []
    scored: list[Row] = []
    for group, values in zip(groups, advantages, strict=True):
        for number, (rollout, row, advantage) in enumerate(zip(group.rollouts, group.rows, values, strict=True)):
            samples.append(
                Sample(
                    len(samples),
                    rollout.prompt_ids,
                    rollout.completion_ids,
                    sampler_logprobs=rollout.sampler_logprobs,
                    advantage=advantage,
                    truncated=row["finish_reason"] == "length",
                    key=(group.place, number),
                )
            )
            scored.append(row.with_fields(advantage=advantage))
    return samples, scored
