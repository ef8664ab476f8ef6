"""Score rows with a list of rewards: rows in, the same rows out in the same order with `rewards` and `reward`.

The one scorer of `reject`, `eval`, `grpo` and `distill`. What a reward can tell at once it tells here; the rest goes to the pool, many
rows at a time, while rows that are done and next in order come out. A reader thread takes rows from the input, so that a finished row
comes out even while the input is silent.
"""

import math
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.rewards import registry
from r1cli.rewards.aside import Aside
from r1cli.rewards.pool import Outcome, Pool, Request
from r1cli.rewards.reward import Reward, RewardSpec, Score, Undecided
from r1cli.rewards.sets import applies
from r1cli.row import Row

WINDOW = 1024  # rows read ahead of the row that comes out next: memory stays flat
BATCH_SECONDS = 0.05  # a batch that is not full leaves after this


class _Pending:
    """A row whose rewards are not all known."""

    __slots__ = ("missing", "row", "scores")

    def __init__(self, row: Row, names: Sequence[str]) -> None:
        self.row = row
        self.scores: dict[str, Score] = dict.fromkeys(names)
        self.missing = 0


class Scorer:
    """Scores rows; a context manager that owns the worker processes.

    workers: worker processes, 0 is one per core. timeout: seconds one row may take in one reward; then its worker is killed and its score
    is 0. models: rewards that are made already and score in this process (`reward.Reward.local`), after the others in the list.
    timeouts, crashes: how many scores became 0 that way so far.
    """

    def __init__(
        self, specs: Sequence[RewardSpec], workers: int = 0, timeout: float = 5.0, models: Sequence[tuple[RewardSpec, Reward]] = ()
    ) -> None:
        self.specs = [*specs, *(spec for spec, _ in models)]
        late = next((spec for spec in self.specs if spec.start), None)
        if late is not None:
            raise R1Error(
                f"reward `{late.name}` starts at step {late.start}, and there are no steps here",
                hint=f"@{late.start} is for `r1 grpo`: leave it out",
                code=Exit.USAGE,
            )
        self.timeout = timeout
        self.timeouts = 0
        self.crashes = 0
        rules = [registry.make(spec) for spec in specs]
        self._rewards: list[Reward] = [*rules, *(reward for _, reward in models)]
        self._names = [spec.name for spec in self.specs]
        memory = max((reward.memory_gib for reward in rules), default=4.0)
        self._pool = Pool(specs, workers or os.cpu_count() or 1, memory)
        self._aside = Aside()
        users = [index for index, spec in enumerate(specs) if ":" in spec.source]
        if users:
            self._start(users)

    def _start(self, indexes: list[int]) -> None:
        try:
            self._pool.start(indexes)
        except R1Error:
            self._pool.close()
            raise

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes; what is unfinished is dropped."""
        self._aside.close()
        self._pool.close()

    def warnings(self) -> list[str]:
        """Sentences for the summary: time-outs, crashes, and what the rewards have to say about the data."""
        said = []
        if self.timeouts:
            said.append(f"{self.timeouts} scores are 0 because a reward took longer than {self.timeout:g} s")
        if self.crashes:
            said.append(f"{self.crashes} scores are 0 because a reward's worker crashed or ran out of memory")
        # once, though `accuracy` and the `length` that asks it say the same of the same rows
        return list(dict.fromkeys([*said, *(line for reward in self._rewards for line in reward.complaints())]))

    def score(self, rows: Iterable[Row], read_ahead: bool = True, on_bad: Callable[[R1Error], None] | None = None) -> Iterator[Row]:
        """Each row with `rewards` {name: number or null} and `reward`, their weighted sum (null counts 0), in input order.

        A field that a reward needs and a row lacks is an `R1Error` (exit 2), raised after the rows before it have come out. Fields
        `rewards` and `reward` that the row had are replaced. read_ahead: pull the input in a thread of its own (a list never needs one).
        on_bad: told of a row that lacks a field instead of raising; the row is left out.
        """
        flow = _Flow(self, on_bad)
        threaded = read_ahead and not isinstance(rows, Sequence)
        source = _read_ahead(rows, flow.events) if threaded else None
        try:
            yield from flow.run(iter(rows) if source is None else None)
        finally:
            flow.stopped = True
            if source is not None:
                source.set()

    def total(self, scores: dict[str, Score]) -> float:
        """The weighted sum of a row's scores."""
        return math.fsum(spec.weight * (scores[spec.name] or 0.0) for spec in self.specs)


class _Flow:
    """One pass of `Scorer.score`: rows wait in order in `pending`, events (rows read, outcomes) arrive in one queue."""

    def __init__(self, scorer: Scorer, on_bad: Callable[[R1Error], None] | None) -> None:
        self.scorer = scorer
        self.on_bad = on_bad
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.pending: deque[_Pending] = deque()
        self.batches: dict[int, list[_Pending]] = {}
        self.batch_due = math.inf
        self.failure: BaseException | None = None
        self.ended = False
        self.stopped = False

    def run(self, direct: Iterator[Row] | None) -> Iterator[Row]:
        """Rows as they are finished. `direct` is pulled here; without it rows arrive as events of the reader thread."""
        while True:
            while self.pending and not self.pending[0].missing:
                yield self._finished(self.pending.popleft())
            if self.failure is not None and not self.pending:
                raise self.failure
            if self.ended and not self.pending:
                return
            if direct is not None and not self.ended and len(self.pending) < WINDOW:
                self._pull(direct)
            else:
                self._flush(force=self.ended)
                self._take_event()

    def _pull(self, direct: Iterator[Row]) -> None:
        try:
            row = next(direct)
        except StopIteration:
            self.ended = True
        else:
            self._admit(row)

    def _take_event(self) -> None:
        wait = None if self.batch_due == math.inf else max(0.0, self.batch_due - time.monotonic())
        try:
            event = self.events.get(timeout=wait)
        except queue.Empty:
            self._flush(force=True)
            return
        if isinstance(event, _Arrival):
            event.room.release()
            if event.error is not None:
                self.failure, self.ended = event.error, True
            elif event.row is None:
                self.ended = True
            elif not self.ended:
                self._admit(event.row)
        else:
            self._settle(*event)

    def _admit(self, row: Row) -> None:
        item = _Pending(row, self.scorer._names)
        try:
            for index, reward in enumerate(self.scorer._rewards):
                score = reward.quick(row) if applies(self.scorer.specs[index].sets, row) else None
                if isinstance(score, Undecided):
                    item.missing += 1
                    self._send(index, reward, item)
                else:
                    item.scores[reward.name] = score
        except R1Error as error:
            if self.on_bad is not None:
                self.on_bad(error)
            else:
                self.failure, self.ended = error, True
            return
        self.pending.append(item)

    def _send(self, index: int, reward: Reward, item: _Pending) -> None:
        if not reward.batched:
            self._submit(index, [item])
            return
        batch = self.batches.setdefault(index, [])
        batch.append(item)
        if len(batch) >= reward.batch_rows:
            self._submit(index, self.batches.pop(index))
        self.batch_due = min(self.batch_due, time.monotonic() + BATCH_SECONDS) if self.batches else math.inf

    def _flush(self, force: bool) -> None:
        if force or time.monotonic() >= self.batch_due:
            while self.batches:
                self._submit(*self.batches.popitem())
            self.batch_due = math.inf

    def _submit(self, index: int, items: list[_Pending]) -> None:
        if self.scorer._rewards[index].local:
            self.scorer._aside.submit(lambda: self._score_here(index, items))
            return
        seconds = sum(max(self.scorer.timeout, self.scorer._rewards[index].time_for(item.row)) for item in items)
        events = self.events
        self.scorer._pool.submit(Request(index, [item.row for item in items], seconds, lambda outcome: events.put((index, items, outcome))))

    def _score_here(self, index: int, items: list[_Pending]) -> None:
        try:
            outcome = Outcome(self.scorer._rewards[index].score_batch([item.row for item in items]))
        except Exception as error:  # raised again by the thread that asked
            outcome = Outcome(error=error)
        self.events.put((index, items, outcome))

    def _settle(self, index: int, items: list[_Pending], outcome: Outcome) -> None:
        scores: Sequence[Score] = outcome.scores or [0.0] * len(items)
        if outcome.error is not None:
            self.failure, self.ended = self.failure or outcome.error, True
            while self.pending and items[0] in self.pending:  # the rows before the failing one still come out
                self.pending.pop()
        self.scorer.timeouts += outcome.late
        if outcome.lost == "timeout":
            self.scorer.timeouts += len(items)
        elif outcome.lost:
            self.scorer.crashes += len(items)
        for item, score in zip(items, scores, strict=True):
            self.scorer._rewards[index].settled(item.row, score)
            item.scores[self.scorer._names[index]] = score
            item.missing -= 1

    def _finished(self, item: _Pending) -> Row:
        for name, score in item.scores.items():
            if score is not None and not math.isfinite(score):
                raise R1Error(
                    f"reward `{name}` gave {score} for row `{item.row.get('id', '?')}`",
                    hint="a reward is a finite number or null",
                    code=Exit.FAILED,
                )
        total = self.scorer.total(item.scores)
        if not math.isfinite(total):
            raise R1Error(
                f"the weighted rewards of row `{item.row.get('id', '?')}` add up to {total}: {item.scores}",
                hint="lower the weights of --rewards, or the scores",
                code=Exit.FAILED,
            )
        return item.row.with_fields(rewards=item.scores, reward=total)


class _Arrival:
    """A row from the reader thread; row None is the end, `error` what the input raised."""

    __slots__ = ("error", "room", "row")

    def __init__(self, row: Row | None, error: BaseException | None, room: threading.Semaphore) -> None:
        self.row, self.error, self.room = row, error, room


def _read_ahead(rows: Iterable[Row], events: "queue.SimpleQueue[Any]") -> threading.Event:
    """Start the reader thread; at most WINDOW rows wait in `events`. The event returned stops it at its next row."""
    stop, room = threading.Event(), threading.Semaphore(WINDOW)

    def read() -> None:
        try:
            for row in rows:
                room.acquire()
                if stop.is_set():
                    return
                events.put(_Arrival(row, None, room))
        except BaseException as error:  # raised again by the thread that scores
            events.put(_Arrival(None, error, room))
        else:
            events.put(_Arrival(None, None, room))

    threading.Thread(target=read, name="reward-input", daemon=True).start()
    return stop
