"""What a command says to people: everything here goes to stderr, rows never do.

On a terminal, long work shows a bar with its rate and remaining time; elsewhere (a log file, CI, TERM=dumb, --verbose) it is one plain line
every ten seconds. Plain output holds no colours and no carriage returns. NO_COLOR and FORCE_COLOR are honoured.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 10.0
STYLES = {"error": "1;31", "warning": "1;33", "hint": "1;36"}  # ANSI: bold red, bold yellow, bold cyan


class Console:
    """The voice of one command. quiet 1 hides notes, progress and the summary, quiet 2 also warnings; errors are always said."""

    def __init__(
        self,
        *,
        quiet: int = 0,
        verbose: bool = False,
        progress: bool = True,
        stream: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._progress = progress
        self._stream = stream
        self._clock = clock
        self._warned: dict[str, int] = {}
        terminal = self.stream.isatty() and environ.get("TERM") != "dumb"
        self.colour = not environ.get("NO_COLOR") and (terminal or bool(environ.get("FORCE_COLOR")))
        self.bars = terminal and not verbose

    @property
    def stream(self) -> TextIO:
        """stderr as it is now: a running bar puts itself in front of it."""
        return self._stream or sys.stderr

    def info(self, text: str) -> None:
        """A note; hidden by -q."""
        if self.quiet < 1:
            self._line(text)

    def detail(self, text: str) -> None:
        """A note that only --verbose shows."""
        if self.verbose:
            self._line(text)

    def warn(self, text: str) -> None:
        """A warning; the same one is said once, and counted at the end. Hidden by -qq."""
        self._warned[text] = self._warned.get(text, 0) + 1
        if self._warned[text] == 1 and self.quiet < 2:
            self._line(f"{self._styled('warning')} {text}")

    def error(self, text: str, hint: str | None = None) -> None:
        """`error: text`, an empty line, `hint: ...`; one line each, whatever the text holds."""
        self._line(f"{self._styled('error')} {_one_line(text)}")
        if hint:
            self._line("")
            self.hint(hint)

    def hint(self, text: str) -> None:
        """`hint: text`: the command or flag to try next."""
        self._line(f"{self._styled('hint')} {_one_line(text)}")

    def summary(self, lines: list[str]) -> None:
        """What was done, in at most a few lines, at the end; hidden by -q."""
        for line in lines:
            self.info(line)

    def close(self) -> None:
        """Say how often each repeated warning came."""
        for text, count in self._warned.items():
            if count > 1 and self.quiet < 2:
                self._line(f"{self._styled('warning')} {text} ({count} times)")
        self._warned.clear()

    @contextlib.contextmanager
    def progress(self, total: int | None, unit: str, label: str = "") -> Iterator["Progress"]:
        """Show how far `total` units have come (None: not known). The block calls `.advance(n)`, and `.set(text)` for figures beside it."""
        shown = self._progress and self.quiet < 1
        kind = Bar if shown and self.bars else Lines if shown else Progress
        with kind(self, total, unit, label) as progress:
            yield progress

    def _styled(self, word: str) -> str:
        return f"\x1b[{STYLES[word]}m{word}:\x1b[0m" if self.colour else f"{word}:"

    def _line(self, text: str) -> None:
        try:
            self.stream.write(text + "\n")
            self.stream.flush()
        except BrokenPipeError:  # nobody listens (2>&1 | head): the rows go on
            point_at_nothing(self.stream)


class Progress:
    """Counts and shows nothing: what -q and --no-progress give, and what the two visible ones build on."""

    def __init__(self, console: Console, total: int | None, unit: str, label: str) -> None:
        self._console, self.total, self.unit, self.label = console, total, unit, label
        self.done = 0
        self.extra = ""
        self._start = console._clock()

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count

    def set(self, text: str) -> None:
        """Figures to show beside the count, such as "reward 0.51"."""
        self.extra = text

    def restart(self) -> None:
        """What came before, such as loading a model, does not count in the rate."""
        self._start = self._console._clock()

    def rate(self) -> float:
        """Units a second since the start."""
        elapsed = self._console._clock() - self._start
        return self.done / elapsed if elapsed > 0 else 0.0

    def line(self) -> str:
        """`sample 120/1000 rows, 12.3 rows/s, 1:12 left, reward 0.5`."""
        of = f"/{self.total}" if self.total is not None else ""
        parts = [f"{self.label} {self.done}{of} {self.unit}".lstrip(), f"{_rate(self.rate())} {self.unit}/s"]
        if self.total is not None and self.rate() > 0 and self.done < self.total:
            parts.append(f"{_clock((self.total - self.done) / self.rate())} left")
        return ", ".join([*parts, self.extra] if self.extra else parts)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None


class Lines(Progress):
    """A plain line every ten seconds, and a last one when there was any."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._last, self._said = self._start, -1

    def restart(self) -> None:
        """See `Progress.restart`; the next line comes ten seconds from now."""
        super().restart()
        self._last = self._start

    def advance(self, count: int = 1) -> None:
        """`count` more units are done; says so when the last line is ten seconds old."""
        super().advance(count)
        if self._console._clock() - self._last >= SECONDS_BETWEEN_LINES:
            self._say()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if 0 <= self._said < self.done and kind in (None, KeyboardInterrupt):  # silent when the reader of stdout has left
            self._say()

    def _say(self) -> None:
        self._last, self._said = self._console._clock(), self.done
        self._console._line(self.line())


class Bar(Progress):
    """A live bar by rich. Its stdout redirection stays off: it would draw rows into the bar."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        no_colour = not self._console.colour
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[extra]}"),
            console=RichConsole(file=self._console.stream, no_color=no_colour),
            redirect_stdout=False,
            transient=False,
        )
        self._task = self._bar.add_task(self.label, total=self.total, unit=self.unit, rate="", extra="")

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        super().advance(count)
        self._bar.update(self._task, advance=count, rate=f"{_rate(self.rate())}/s")

    def set(self, text: str) -> None:
        """Figures to show beside the count."""
        super().set(text)
        self._bar.update(self._task, extra=text)

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()


def point_at_nothing(stream: TextIO) -> None:
    """Later writes, and the flush at exit, of a stream whose reader has left vanish instead of failing."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _one_line(text: str) -> str:
    return " ".join(text.split("\n")).strip()


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
