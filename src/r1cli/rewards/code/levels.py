"""Which sandbox this machine allows, found out once a process by trying, from best to least.

A level counts as reached when a probe program, run at that level, starts, imports what programs import, and sees every forbidden thing
refused. Nothing is assumed from a kernel version: containers and security modules take away what the kernel has.
"""

import os
from dataclasses import replace
from functools import cache

from r1cli.errors import Exit, R1Error
from r1cli.rewards.code.sandbox import Level, Limits, Sandbox

DEFAULT_MINIMUM = Level.CONFINED

# What must hold at each level, as Python conditions inside the sandbox. `refused(f, ...)` is True when the call raises OSError.
_CONDITIONS = {
    Level.LIMITS: ("os.environ.get('HOME') == os.getcwd()", "os.listdir('.') == []", "resource.getrlimit(resource.RLIMIT_CORE)[1] == 0"),
    Level.SECCOMP: ("refused(socket.socket)", "refused(os.fork)", "refused(os.kill, os.getppid(), 0)", "refused(os.setpgid, 0, 0)"),
    Level.CONFINED: ("refused(os.listdir, '/')", "refused(open, '/etc/passwd')", "refused(open, '/proc/self/environ')"),
    Level.NAMESPACES: (),
    Level.BUBBLEWRAP: ("os.getpid() == 1", "not os.path.exists('/etc/passwd')"),
}
_PROBE = """
import collections, decimal, fractions, heapq, itertools, json, math, os, random, re, resource, socket, statistics, string, threading

def refused(function, *args):
    try:
        function(*args)
    except OSError:
        return True
    return False

thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
open("file", "w").close()
os.remove("file")
print({conditions})
"""


@cache
def available() -> Sandbox:
    """The best sandbox that works here. Raises `R1Error` (exit 3) when not even the least one does."""
    users = ["nobody", "same"] if os.geteuid() == 0 else ["same"]
    for level in sorted(Level, reverse=True):
        for user in users:
            if _works(sandbox := Sandbox(level, user)):
                return sandbox
    hint = "the local sandbox needs Linux; R1_SANDBOX_URL names a remote one"
    raise R1Error("no process can be started in a sandbox here", hint=hint, code=Exit.ENVIRONMENT)


def required(minimum: Level = DEFAULT_MINIMUM, unsafe: bool = False) -> Sandbox:
    """The sandbox to run model code in. Raises `R1Error` (exit 3) when the best does not reach the minimum and `unsafe` is not set.

    Namespaces are entered only when they are the minimum: behind Landlock and seccomp they add half again to the cost of a process and
    close nothing that a probe could find open.
    """
    sandbox = available()
    if sandbox.level < minimum and not unsafe:
        reached, asked = sandbox.level.name.lower(), minimum.name.lower()
        what = f"this machine's sandbox level is `{reached}`, below the minimum `{asked}`: model code does not run"
        hint = "use a kernel with Landlock and seccomp, or a remote sandbox (R1_SANDBOX_URL); --unsafe runs it all the same"
        raise R1Error(what, hint=hint, code=Exit.ENVIRONMENT)
    return replace(sandbox, level=min(sandbox.level, max(minimum, DEFAULT_MINIMUM)))


def _works(sandbox: Sandbox) -> bool:
    conditions = " and ".join(c for level, found in _CONDITIONS.items() if level <= sandbox.level for c in found)
    try:
        with sandbox.start({"mode": "script", "source": _PROBE.format(conditions=conditions)}, Limits()) as process:
            finished = process.finish()
    except (R1Error, OSError):
        return False
    return finished.status == "ok" and finished.code == 0 and finished.stdout == b"True\n"
