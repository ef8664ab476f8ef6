"""The guard around a command: rows own stdout, errors and signals become one or two lines and an exit code.

r1 sample ... | head -1      a reader that leaves is no failure: exit 0, silence
Ctrl-C                       what is finished is kept, the command that continues is named, exit 130; a second one, 2 s later, kills
SIGTERM, SIGHUP              the same without a hint, exit 143
R1Error                      `error:` and `hint:`, its exit code
anything else                a bug in r1: one line, exit 1; --debug or R1_DEBUG=1 shows the traceback
"""

import ctypes
import importlib
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from r1cli import config
from r1cli.errors import Exit, R1Error
from r1cli.io.stdout import ReaderLeft, claim_stdout, reader_left
from r1cli.report.console import Console, point_at_nothing
from r1cli.report.logs import quiet_libraries

SECONDS_TO_END = 30.0  # after SIGTERM
REPEAT_SECONDS = 2.0  # a signal to a whole group, and the same one passed on by a launcher or a shell, are one wish
LAUNCH = "R1CLI_LAUNCH"  # the folder of the launch that this process is one of: its error goes there (`commands/launch.py`)
LAUNCHED = os.environ.pop(LAUNCH, None)  # and is not for the processes that this one starts
MODULES = {"rewards": "rewards_list"}  # commands whose module has another name
# in errors of gloo, torch's store and NCCL about another process
GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote worker", "remote server", "remote process")
LATE = re.compile(r"(?:timed out waiting|timed out after|wait timeout after) ?(\d+) ?(ms|milliseconds|seconds)", re.IGNORECASE)
INSTALL = {"vllm": "r1cli[vllm]", "matplotlib": "r1cli[bench]", "reasoning_gym": "r1cli[demo]", "gguf": "r1cli[demo]"}


class Terminated(BaseException):
    """SIGTERM arrived. A BaseException, so that `finally` blocks run and nothing takes it for a failure of its own."""


class Deserted(R1Error):
    """Another process of the launch is gone: what is said here is only the echo of that."""


@dataclass(frozen=True)
class Context:
    """What a command gets besides its settings: its name, which layer set each field, where it speaks, and whether its rows are piped."""

    command: str
    sources: dict[str, str]
    console: Console
    reads_stdin: bool = False
    _resume: list[str] = field(default_factory=list)

    def on_interrupt(self, resume: str | None = None) -> None:
        """Name the command that continues after Ctrl-C; without one it is this call with --resume."""
        self._resume[:] = [resume or config.again(self.command, self.sources, reads_stdin=self.reads_stdin)]

    @property
    def resume(self) -> str | None:
        """The command that continues, for a command that can be continued."""
        return self._resume[0] if self._resume else None


def run(command: str, settings: Any, sources: dict[str, str]) -> int:
    """Run `r1cli.commands.COMMAND` under the guard; its exit code."""
    console = Console(quiet=settings.quiet, verbose=settings.verbose, progress=getattr(settings, "progress", False))
    inputs = getattr(settings, "inputs", None)
    piped = inputs is not None and (not inputs or "-" in inputs) and not getattr(settings, "traces", None)
    context = Context(command, sources, console, piped)

    def work() -> None:
        claim_stdout()
        quiet_libraries(verbose=settings.verbose)
        module = importlib.import_module(f"r1cli.commands.{MODULES.get(command, command)}")
        with importlib.import_module("r1cli.commands.gone").naming_gone():
            module.run(settings, context)

    return exit_code(work, console, debug=settings.debug, resume=context._resume)


def exit_code(work: Callable[[], None], console: Console, *, debug: bool = False, resume: list[str] | None = None) -> int:
    """Call `work` and turn whatever ends it into an exit code, saying what people need to know."""
    taken: set[int] = set()
    try:
        with signals_raise() as taken:
            work()
            console.close()
        return Exit.OK
    except KeyboardInterrupt:
        console.close()
        if resume:
            console.hint(resume[0])
        return Exit.INTERRUPTED
    except Terminated:
        console.close()
        return Exit.TERMINATED
    except ReaderLeft:
        return _leave_quietly()
    except BrokenPipeError as error:
        return _leave_quietly() if reader_left() else failed(error, console, debug)
    except Exception as error:  # the last stop: every failure of a command ends here
        if isinstance(error, ImportError) and signal.SIGTERM in taken:  # an extension module makes one of what interrupts it
            return Exit.TERMINATED
        return failed(error, console, debug)


def _leave_quietly() -> int:
    """stderr may have lost its reader too (2>&1 | head): what it still holds must not fail at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            point_at_nothing(stream)
    return Exit.OK


def failed(error: Exception, console: Console, debug: bool = False) -> int:
    """Say what went wrong, with its traceback if asked; the exit code."""
    if debug:
        traceback.print_exception(error, file=console.stream)
    console.close()
    known = error if isinstance(error, R1Error) else explain(error)
    if not leave_note(known):
        console.error(known.message, hint=known.hint)
    return known.code


def of_a_launch() -> bool:
    """Whether this process is one of several that somebody started: `r1 --num-processes`, `accelerate launch`, srun."""
    return LAUNCHED is not None or int(os.environ.get("WORLD_SIZE", "1")) > 1


def leave_note(error: R1Error) -> bool:
    """Leave an error to the process that started this one; False when there is none, or none any more."""
    if LAUNCHED is None:
        return False
    note = {"time": time.time(), "message": error.message, "hint": error.hint, "code": int(error.code)}
    note["echo"] = isinstance(error, Deserted)
    path = Path(LAUNCHED) / f"error_{os.environ.get('RANK', '0')}.json"
    try:
        path.write_text(json.dumps(note), "utf-8")
    except OSError:
        return False
    return True


def explain(error: Exception) -> R1Error:
    """What a library raised, as an error with the flag or the package to change; a bug of r1 when nothing else fits."""
    name, text = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        if package and package != "r1cli":
            return R1Error(
                f"this needs the package `{package}`, which cannot be imported ({text})",
                hint=f"pip install '{INSTALL.get(package, package)}'",
                code=Exit.ENVIRONMENT,
            )
    if name == "OutOfMemoryError" or isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "out of memory" in text):
        return R1Error(
            f"out of memory ({text.partition('. ')[0] or name})",
            hint="lower --microbatch-tokens, --batch-size or --gpu-memory, or add --gradient-checkpointing",
        )
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return R1Error(
            f"`{error.filename}`: {error.strerror[0].lower()}{error.strerror[1:]}",
            hint="check the path and its permissions",
            code=Exit.USAGE,
        )
    if isinstance(error, RuntimeError) and (found := _of_a_collective(error, text)) is not None:
        return found
    return R1Error(
        f"unexpected {name}: {text}: this is a bug" if text else f"unexpected {name}: this is a bug",
        hint="run it again with --debug and report the traceback",
    )


def _of_a_collective(error: RuntimeError, text: str) -> R1Error | None:
    """What gloo, NCCL and torch's store raise when another process is late or gone; None for any other error."""
    place = " > ".join(_names(error)[-3:]) or "torch"
    if waited := LATE.search(text):
        seconds = int(waited[1]) / (1 if waited[2] == "seconds" else 1000)
        return R1Error(
            f"another process did not arrive within {_long(seconds)}: this one waited for it in `{place}`",
            hint="the other one stands still, or had far more to do; --verbose shows what each of them says, --resume goes on",
        )
    if any(words in text for words in GONE):
        what = re.sub(r"^\[\S+\] ", "", text).partition(". ")[0]
        return Deserted(
            f"another process is gone: this one waited for it in `{place}` ({what})",
            hint="the other one's own error says why; --resume goes on",
        )
    return None


def _names(error: BaseException) -> list[str]:
    """The functions of r1 that an error went through, the innermost last."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [code.co_name for code in frames if Path(code.co_filename).is_relative_to(Path(__file__).parent)]
    return [name for name in ours if not name.startswith("<")]


def _long(seconds: float) -> str:
    return f"{round(seconds / 3600, 1):g} h" if seconds >= 3600 else f"{seconds:g} s"


def ignore_repeats(number: int) -> None:
    """Ignore a signal for REPEAT_SECONDS; after that it ends the process at once, whatever the main thread is doing."""
    signal.signal(number, signal.SIG_IGN)
    timer = threading.Timer(REPEAT_SECONDS, ctypes.CDLL(None).signal, (number, None))  # Python's own is for the main thread only
    timer.daemon = True
    timer.start()


@contextmanager
def signals_raise() -> Iterator[set[int]]:
    """Ctrl-C and SIGTERM become exceptions in the main thread, once: a later one ends the process by itself. Yields those that came."""
    taken: set[int] = set()
    if threading.current_thread() is not threading.main_thread():
        yield taken
        return
    owner = os.getpid()
    ending = False

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child made by fork dies as if it had no handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number in taken:  # it came again before this had begun to ignore it
            return
        taken.add(number)
        ignore_repeats(number)
        if number == signal.SIGTERM:
            _end_later()
            raise Terminated
        _say_now("interrupted: ending, what is finished is kept; Ctrl-C again kills")
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else it is ignored: nohup
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, _hung_up([number for number in (1, 2) if os.isatty(number)]))
    try:
        yield taken
    except (KeyboardInterrupt, Terminated):
        ending = True
        raise
    finally:
        for number, old in before.items():
            if not ending:
                signal.signal(number, old)
            elif signal.getsignal(number) is not signal.SIG_IGN:  # a repeat must not change how this process ends
                ignore_repeats(number)


def _hung_up(terminals: list[int]) -> Callable[[int, FrameType | None], None]:
    """What SIGHUP does: it is SIGTERM, whoever handles that now, and what is said on a terminal that has gone must not fail."""
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child made by fork
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for terminal in terminals:
            os.dup2(nowhere, terminal)
        os.close(nowhere)
        signal.raise_signal(signal.SIGTERM)

    return handle


def _end_later() -> None:
    """End the process by the signal itself if it is still there after a grace: a library may swallow the exception."""
    timer = threading.Timer(SECONDS_TO_END, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()


def _say_now(text: str) -> None:
    """One line on stderr from inside a signal handler, past every buffer and bar."""
    lead = "\n" if os.isatty(2) else ""
    os.write(2, f"{lead}{text}\n".encode())
