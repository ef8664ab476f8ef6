"""Rows that a model is asked about on their way: answered ones come out in input order, while the input and the model both go on.

The model is a callable: prompt rows in, completion rows out as they end, in any order (a sampler's `draw_tasks`, or a function in a test).
It runs in a thread of its own and the input is pulled in another, so that a row that needs no answer does not wait for the model,
and an answered one does not wait for the input. At most `WINDOW` rows are on their way.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from r1cli.row import Message, Row

Ask = Callable[[Iterable[Row], Callable[[Row], None]], Iterable[Row]]
"""(prompt rows, told of each that gets no completion) -> completion rows, in any order, with the fields of their prompt rows."""
T = TypeVar("T")
WINDOW = 1024
PLACE = "asked_by"  # the field of a prompt row that says which question of which row it is


class _Item:
    """A row on its way, and the replies it waits for."""

    __slots__ = ("missing", "replies", "row")

    def __init__(self, row: Any, questions: int) -> None:
        self.row = row
        self.replies: list[Row | None] = [None] * questions
        self.missing = questions


Question = tuple[str, list[Message]]
"""A name, which the seed of the reply follows from, and the messages."""


def asked(rows: Iterable[T], ask: Ask, questions_of: Callable[[T], Sequence[Question]]) -> Iterator[tuple[T, list[Row]]]:
    """Each row with the replies to its questions, in input order; a row without questions has none and waits for nothing.

    A question that gets no reply (the model has no room for it) has an empty one that was cut off (`finish_reason` "length"). An error of
    the input is raised once the rows before it have come out, one of the model at once.
    """
    flow = _Flow(ask, questions_of)
    try:
        yield from flow.run(rows)
    finally:
        flow.stop()


class _Flow:
    """One pass of `asked`. Events: ("row", its number), ("reply", row), ("end", None or the input's error), ("error", the model's)."""

    def __init__(self, ask: Ask, questions_of: Callable[[Any], Sequence[Question]]) -> None:
        self._ask = ask
        self._questions_of = questions_of
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(WINDOW)
        self._stopped = threading.Event()
        self._items: dict[int, _Item] = {}
        self._order: deque[int] = deque()

    def run(self, rows: Iterable[Any]) -> Iterator[tuple[Any, list[Row]]]:
        threading.Thread(target=self._read, args=(rows,), name="judge-input", daemon=True).start()
        answering = threading.Thread(target=self._answer, name="judge", daemon=True)
        answering.start()
        failure: BaseException | None = None
        ended = False
        while not ended or self._order:
            kind, value = self._events.get()
            if kind == "error":
                raise value
            if kind == "end":
                failure, ended = value, True
            elif kind == "reply":
                self._settle(value)
            else:
                self._order.append(value)
            while self._order and not self._items[self._order[0]].missing:
                item = self._items.pop(self._order.popleft())
                self._room.release()
                yield item.row, [reply for reply in item.replies if reply is not None]
        answering.join()  # it has been told that nothing more comes; the model may be closed after this
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Ask nothing more; what the threads hold is dropped."""
        self._stopped.set()
        self._room.release()
        self._questions.put(None)

    def _settle(self, reply: Row) -> None:
        number, place = reply[PLACE]
        item = self._items[number]
        item.replies[place] = reply
        item.missing -= 1

    def _read(self, rows: Iterable[Any]) -> None:
        failure: BaseException | None = None
        try:
            for number, row in enumerate(rows):
                self._room.acquire()
                if self._stopped.is_set():
                    return
                self._admit(number, row)
        except BaseException as error:  # raised again by the thread that waits
            failure = error
        self._questions.put(None)
        self._events.put(("end", failure))

    def _admit(self, number: int, row: Any) -> None:
        questions = self._questions_of(row)
        self._items[number] = _Item(row, len(questions))
        self._events.put(("row", number))
        for place, (name, messages) in enumerate(questions):
            self._questions.put(Row({"id": name, "prompt": messages, PLACE: [number, place]}))

    def _answer(self) -> None:
        def waiting() -> Iterator[Row]:
            while (question := self._questions.get()) is not None and not self._stopped.is_set():
                yield question

        def unanswered(question: Row) -> None:
            self._events.put(("reply", Row({**question, "completion": "", "finish_reason": "length"})))

        try:
            for reply in self._ask(waiting(), unanswered):
                if self._stopped.is_set():
                    return
                self._events.put(("reply", reply))
        except BaseException as error:  # raised again by the thread that waits
            self._events.put(("error", error))
