"""The console: what is said at which volume, once or often, and how progress looks where there is no terminal."""

import io
import re

import pytest

from r1cli.report.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spoken(quiet: int, verbose: bool = False) -> str:
    stream = io.StringIO()
    console = Console(quiet=quiet, verbose=verbose, stream=stream, environ={})
    console.info("note")
    console.detail("detail")
    console.warn("careful")
    console.error("broken")
    console.summary(["sum"])
    console.close()
    return stream.getvalue()


def test_volume() -> None:
    assert spoken(0) == "note\nwarning: careful\nerror: broken\nsum\n"
    assert spoken(1) == "warning: careful\nerror: broken\n"
    assert spoken(2) == "error: broken\n"
    assert spoken(0, verbose=True) == "note\ndetail\nwarning: careful\nerror: broken\nsum\n"


def test_an_error_is_one_line_and_its_hint_another() -> None:
    stream = io.StringIO()
    Console(stream=stream, environ={}).error("first\nsecond", hint="do\nthis")
    assert stream.getvalue() == "error: first second\n\nhint: do this\n"


def test_the_same_warning_is_said_once_and_counted() -> None:
    stream = io.StringIO()
    console = Console(stream=stream, environ={})
    for _ in range(10_000):
        console.warn("no answer")
    console.warn("other")
    console.close()
    console.close()
    assert stream.getvalue() == "warning: no answer\nwarning: other\nwarning: no answer (10000 times)\n"


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
    ],
)
def test_colour_is_for_terminals_and_those_who_ask(stream: io.StringIO, environ: dict[str, str], coloured: bool) -> None:
    Console(stream=stream, environ=environ).error("broken")
    assert ("\x1b[" in stream.getvalue()) is coloured


def test_plain_progress_speaks_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    with Console(stream=stream, environ={}, clock=clock).progress(100, "rows", "sample") as progress:
        for _ in range(25):
            clock.now += 1.0
            progress.advance(2)
            progress.set(f"reward {progress.done / 100:.2f}")
    assert stream.getvalue() == (
        "sample 20/100 rows, 2 rows/s, 0:40 left, reward 0.18\n"
        "sample 40/100 rows, 2 rows/s, 0:30 left, reward 0.38\n"
        "sample 50/100 rows, 2 rows/s, 0:25 left, reward 0.50\n"
    )


def test_plain_progress_of_unknown_length_and_of_hours() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(stream=stream, environ={}, clock=clock)
    with console.progress(None, "rows") as progress:
        clock.now = 20.0
        progress.advance(5000)
    with console.progress(10_000, "steps", "grpo") as progress:
        clock.now = 30.0
        progress.advance(5)
    assert stream.getvalue() == "5000 rows, 250 rows/s\ngrpo 5/10000 steps, 0.5 steps/s, 5:33:10 left\n"


@pytest.mark.parametrize(("quiet", "shown"), [(1, True), (0, False)])
def test_progress_can_be_silent(quiet: int, shown: bool) -> None:
    stream, clock = io.StringIO(), Clock()
    with Console(stream=stream, environ={}, clock=clock, quiet=quiet, progress=shown).progress(10, "rows") as progress:
        clock.now = 100.0
        progress.advance(5)
    assert (stream.getvalue(), progress.done) == ("", 5)


def test_a_short_run_says_nothing_on_a_pipe() -> None:
    stream = io.StringIO()
    with Console(stream=stream, environ={}, clock=Clock()).progress(10, "rows") as progress:
        progress.advance(10)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_with_count_and_figures() -> None:
    stream = Terminal()
    with Console(stream=stream, environ={"NO_COLOR": "1", "TERM": "xterm"}).progress(10, "rows", "sample") as progress:
        progress.advance(10)
        progress.set("reward 0.51")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "sample" in text
    assert "10/10 rows" in text
    assert "reward 0.51" in text


@pytest.mark.parametrize(("environ", "verbose"), [({"TERM": "dumb"}, False), ({"TERM": "xterm"}, True)])
def test_no_bar_on_a_dumb_terminal_or_between_verbose_lines(environ: dict[str, str], verbose: bool) -> None:
    stream, clock = Terminal(), Clock()
    with Console(stream=stream, environ={**environ, "NO_COLOR": "1"}, verbose=verbose, clock=clock).progress(4, "rows") as progress:
        clock.now = 10.0
        progress.advance()
    assert stream.getvalue() == "1/4 rows, 0.1 rows/s, 0:30 left\n"


def test_nobody_listening_is_no_failure() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    console = Console(stream=Gone(), environ={})
    console.info("a")
    console.error("b")
