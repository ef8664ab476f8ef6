"""`--num-processes N`: this command in N processes on this machine, each with its part of the batch.

The environment of the processes is accelerate's (its configuration file with --accelerate-config, plain data parallelism without); the
processes are ours. `accelerate launch` runs them under torch's elastic agent, which prints a report of its own for every failure, kills
after 30 s whatever is saving, and starts only one process on a CPU. Here

    an error of a process     is one `error:` line, whichever process had it; the others are given a moment to end, then killed
    Ctrl-C, SIGTERM           go to every process; they agree where to save (`stopping.py`), and get time. A second one, 2 s later, kills
    the same before that      there is nothing to save, and no time is given (`starting.py`)
    a process that is killed  ends the run with an error that names it: nothing waits for it
    a death without a word    is shown with the last lines of that process's stderr
    this process is killed    the others get SIGTERM (Linux), save and end
    rows of stdin and pipes   are kept in files until the end, and every process reads all of them

`accelerate launch -m r1cli grpo ...` works as well, and is the way to several machines; rows must be files then.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from r1cli import clock
from r1cli.commands.launch_folder import own_folder
from r1cli.commands.piped import STDIN, pipes_of, spooled
from r1cli.commands.starting import BEGUN
from r1cli.errors import Exit, R1Error
from r1cli.guard import LAUNCH, LAUNCHED, REPEAT_SECONDS, Context, Deserted, Terminated

LAUNCHER = "R1CLI_LAUNCHER"  # this process, for those it starts: they end with it (`processes.py`)
GRACE_SECONDS = 15.0  # for the other processes, once one has failed
END_SECONDS = 600.0  # for the other processes, once one has ended well, or as all were asked to
POLL_SECONDS = 0.05
CLOSE = 1.0  # seconds between a death and errors of others that may follow from it
LAST_LINES = 20  # of the stderr of a process that left no note
CODES = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}
CRASHES = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def wanted(settings: Any) -> bool:
    """Whether this process is to start others instead of working itself."""
    if LAUNCHED is not None:  # it was started so, perhaps as the only one
        return False
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if "WORLD_SIZE" in os.environ and world > 1:
        if settings.num_processes not in (1, world):
            raise R1Error(
                f"--num-processes {settings.num_processes} in a launch of {world} processes", hint="leave one of them out", code=Exit.USAGE
            )
        return False
    return (settings.num_processes > 1 or settings.accelerate_config is not None) and not settings.dry_run


def start(settings: Any, context: Context) -> None:
    """Run this command line in its processes, and end as they do: normally, with their error, or with the signal that ended them."""
    given = context.sources.get("num_processes", "default") not in ("preset", "default")
    common = environment(settings.num_processes, settings.accelerate_config, given=given)
    count = int(common["WORLD_SIZE"])
    with own_folder() as folder:
        copies = spooled(pipes_of(settings), folder)
        processes = Processes(count, {**common, **copies}, folder, hear_all=settings.debug or settings.verbose)
        with processes.relaying():
            processes.wait()
        processes.end_as_they_did()


class Processes:
    """The processes of a launch. folder: where they leave notes of their errors, and all but the first their stderr."""

    def __init__(self, count: int, common: dict[str, str], folder: Path, *, hear_all: bool = False) -> None:
        self.count, self.folder = count, folder
        self.asked: int | None = None  # the first signal that was passed on
        self.asked_at = 0.0
        self.heard = range(count if hear_all else 1)  # whose stderr is this process's
        self.killed: set[int] = set()
        self.waited = 0.0  # seconds, before that
        self.died: dict[int, float] = {}  # when a process was seen to have ended by a signal
        self.running: list[subprocess.Popen[bytes]] = []
        spool = folder / STDIN
        who = {LAUNCH: str(folder), LAUNCHER: str(os.getpid())}
        for rank in range(count):
            with (folder / f"stderr_{rank}").open("wb") as said, spool.open("rb") if spool.exists() else nullcontext() as rows:
                self.running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "r1cli", *sys.argv[1:]],
                        env={**os.environ, **common, **who, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                        stdin=rows,
                        stderr=None if rank in self.heard else said,
                        start_new_session=True,  # Ctrl-C on a terminal reaches this process only, which passes it on
                    )
                )

    @contextmanager
    def relaying(self) -> Iterator[None]:
        """SIGINT and SIGTERM go to every process; a later one kills them and this one."""

        def relay(number: int, frame: FrameType | None) -> None:
            now = time.monotonic()
            if self.asked is not None:
                if now - self.asked_at < REPEAT_SECONDS:  # the same wish, by another way
                    return
                self.kill()
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.asked, self.asked_at = number, now
            for process in self.running:
                if process.poll() is None:
                    process.send_signal(number)

        before = {number: signal.signal(number, relay) for number in CODES}
        try:
            yield
        finally:
            self.kill()
            for number, old in before.items():
                signal.signal(number, old)

    def kill(self) -> None:
        """End at once what still runs."""
        for rank, process in enumerate(self.running):
            if process.poll() is None:
                self.killed.add(rank)
                process.kill()
                process.wait()

    def wait(self) -> None:
        """Until all have ended; what does not end soon after the first one did is killed. One that ended as it was asked to may have left
        others saving."""
        failed = ended = None
        while True:
            codes = [process.poll() for process in self.running]
            now = time.monotonic()
            for rank, code in enumerate(codes):
                if code is not None and code < 0:
                    self.died.setdefault(rank, time.time())
            if all(code is not None for code in codes):
                return
            well = {Exit.OK} if self.asked is None else {Exit.OK, CODES[signal.Signals(self.asked)]}
            failed = failed or (now if any(code is not None and code not in well for code in codes) else None)
            ended = ended or (now if well & set(codes) else None)
            young = self.asked_at if self.asked is not None and not self.begun() else None  # one may not hear that another has ended
            for since, most in ((failed, GRACE_SECONDS), (young, GRACE_SECONDS), (ended, END_SECONDS)):
                if since is not None and now - since > most:
                    self.waited = most
                    return self.kill()
            time.sleep(POLL_SECONDS)

    def begun(self) -> bool:
        """Whether all have come to where the run can be saved (`starting.begun`)."""
        return all((self.folder / f"{BEGUN}{rank}").exists() for rank in range(self.count))

    def end_as_they_did(self) -> None:
        """Raise what the guard turns into their exit code and one `error:` line; nothing when all went well.

        An error comes before a signal: a process that was asked to end, and could not save, must not seem to have done so.
        """
        codes = [process.returncode for process in self.running]
        error = self._error(codes) if any(codes) else None
        if error is not None and not isinstance(error, Deserted):
            raise error
        asked = set() if self.asked is None else {CODES[signal.Signals(self.asked)], -self.asked}  # the latter: before it had a handler
        if asked & set(codes) or (asked and self._in_vain(codes)):
            raise KeyboardInterrupt if self.asked == signal.SIGINT else Terminated
        for code, signalled in ((Exit.INTERRUPTED, KeyboardInterrupt), (Exit.TERMINATED, Terminated)):
            if code in codes:  # a process was signalled by somebody else, and all have agreed to end, or could not yet
                if self._in_vain(codes):
                    raise R1Error(
                        f"process {codes.index(code) + 1} of {self.count} was asked to end before the first step, and not by this command",
                        hint="look for what ends processes here (a guard of the memory, a scheduler); the same command starts the run anew",
                        code=code,
                    )
                raise signalled
        if error is not None:
            raise error

    def _error(self, codes: Sequence[int]) -> R1Error | None:
        """The error that came first: what the others say after a process has gone (a closed connection) is only its echo, `Deserted`.

        None when there is none: they ended well, or by a signal.
        """
        ends = {*CODES.values(), *(() if self.asked is None else (-self.asked,))}  # the latter: before it had a handler
        paths = {rank: self.folder / f"error_{rank}.json" for rank in range(self.count)}
        notes = {rank: json.loads(path.read_text("utf-8")) for rank, path in paths.items() if path.exists()}
        first = min((note for note in notes.values() if not note["echo"]), key=lambda note: note["time"], default=None)
        fallen = [rank for rank in self.died if rank not in self.killed and codes[rank] not in ends]
        dead = min(fallen, key=lambda rank: self.died[rank], default=None)
        if dead is not None and (first is None or first["time"] > self.died[dead] - CLOSE):
            self._show_last_words(dead)
            number = signal.Signals(-codes[dead])
            hint = "if memory was short: lower --microbatch-tokens or add --gradient-checkpointing; --resume goes on"
            if number in CRASHES:
                hint = "a library did that, its last words are above (NCCL does when another process comes too late); --resume goes on"
            return R1Error(f"process {dead + 1} of {self.count} was ended by {number.name}", hint=hint)
        if first is not None:
            return R1Error(first["message"], hint=first["hint"], code=first["code"])
        stuck = ", ".join(str(rank + 1) for rank in sorted(self.killed))
        if stuck and not self._in_vain(codes) and not any(code > 0 and code not in ends for code in codes):
            return R1Error(
                f"process {stuck} of {self.count} did not end within {self.waited:.0f} s of the others, and was killed",
                hint="what it was saving may be missing; --resume goes on from the last whole checkpoint",
            )
        failed = next((rank for rank, code in enumerate(codes) if code > 0 and code not in ends and rank not in notes), None)
        if failed is None:
            echo = min(notes.values(), key=lambda note: note["time"], default=None)
            return None if echo is None else Deserted(echo["message"], hint=echo["hint"], code=echo["code"])
        self._show_last_words(failed)
        return R1Error(f"process {failed + 1} of {self.count} ended with exit code {codes[failed]}", hint="run it again with --debug")

    def _in_vain(self, codes: Sequence[int]) -> bool:
        """Whether what was killed had nothing to save, and another way to end: it, or another process, had been told to."""
        return bool(self.killed) and not self.begun() and (self.asked is not None or bool({*CODES.values()} & set(codes)))

    def _show_last_words(self, rank: int) -> None:
        """The end of the stderr of a process that died without a note, if it was not heard all along."""
        if rank not in self.heard:
            with (self.folder / f"stderr_{rank}").open(encoding="utf-8", errors="replace") as said:
                sys.stderr.writelines(f"process {rank + 1}: {line.rstrip()}\n" for line in deque(said, LAST_LINES))


def environment(count: int, config: str | None, *, given: bool = False) -> dict[str, str]:
    """What every process gets: where they meet, and what accelerate reads. count: 1 leaves the number to the configuration, unless somebody
    asked for it (given)."""
    threads = os.environ.get("OMP_NUM_THREADS")
    clock.began()  # the same for all of them
    found: dict[str, str] = {}
    if config is not None:
        found, count = _of_accelerate(config, count if given or count > 1 else None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **found,
        "OMP_NUM_THREADS": threads or str(max(1, cores // count)),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _of_accelerate(config: str, count: int | None) -> tuple[dict[str, str], int]:
    """(variables that differ from this process's, processes) by the rules of `accelerate launch --config_file`."""
    if not Path(config).is_file():
        raise R1Error(f"`{config}` does not exist", hint="--accelerate-config FILE, made by `accelerate config`", code=Exit.USAGE)
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    words = ["--config_file", config, *(["--num_processes", str(count)] if count is not None else []), "--module", "r1cli"]
    try:
        given, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
        if given.num_machines > 1:
            raise R1Error(
                f"`{config}` is for {given.num_machines} machines",
                hint=f"on each of them: accelerate launch --config_file {config} --machine_rank N -m r1cli ...",
                code=Exit.USAGE,
            )
        given.main_process_port = 0
        if given.use_deepspeed:
            given.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
            variables = prepare_deepspeed_cmd_env(given)[1]
        else:
            variables = prepare_multi_gpu_env(given)
    except (ValueError, KeyError, TypeError) as error:
        raise R1Error(
            f"`{config}` is no configuration of accelerate: {error}", hint="`accelerate config` makes one", code=Exit.USAGE
        ) from None
    return {name: value for name, value in variables.items() if os.environ.get(name) != value}, int(given.num_processes)
