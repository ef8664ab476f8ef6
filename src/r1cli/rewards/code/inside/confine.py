"""Take rights away from this process, for good: user, namespaces, rlimits, Landlock, seccomp. Linux system calls through ctypes.

Called by `child.py` before any untrusted code. Every step that was asked for either works or raises OSError, and then nothing is run.
Landlock (kernel 5.13) closes the file system except the folders given; seccomp (`seccomp.py`) closes system calls. Both need only
no_new_privs, no root and no namespaces.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct

from . import seccomp

TYPE_CHECKING = False  # `typing` costs milliseconds in every sandbox
if TYPE_CHECKING:
    from typing import Any

NOBODY = 65534
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
SIGKILL = 9
NEWUTS, NEWIPC, NEWUSER, NEWNET = 0x04000000, 0x08000000, 0x10000000, 0x40000000
CAP_VERSION_3 = 0x20080522

# Landlock: the system calls have the same numbers everywhere. Rights by ABI version (include/uapi/linux/landlock.h).
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
FS_EXECUTE, FS_WRITE, FS_READ, FS_READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FS_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many of the bits exist: 1 + refer + truncate + ioctl
FS_FILE_RIGHTS = FS_EXECUTE | FS_WRITE | FS_READ | 1 << 14 | 1 << 15
NET_RIGHTS = 0b11  # bind and connect TCP, ABI 4
SCOPES = 0b11  # abstract sockets and signals, ABI 6

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def check(result: int, what: str) -> int:
    """The result of a call, or OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def confine(job: dict[str, Any]) -> None:
    """Apply what the job asks for.

    job: user ("nobody", "same"), namespaces, landlock, seccomp (bools), limits {seconds, memory, file_bytes, files, stack}, read and
    write (folders), run (folders whose files may be executed), spawn (bool: a compiler may start processes), parent (process id to die
    with)
    """
    if job["namespaces"]:
        _leave_namespaces()
    _drop_user(job["user"])
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "parent death signal")
    if os.getppid() != job["parent"]:
        raise OSError("the parent is gone")
    _limit(job["limits"])
    if job["landlock"]:
        landlock(job["read"], job["write"], job["run"])
    if job["seccomp"]:
        seccomp.install(libc, spawn=job["spawn"], execute=job["spawn"] or bool(job["run"]))


def _leave_namespaces() -> None:
    """An empty network, no shared memory of others. An ordinary user gets such namespaces inside a user namespace."""
    flags = NEWNET | NEWIPC | NEWUTS
    if os.geteuid():
        flags |= NEWUSER
    check(libc.unshare(flags), "unshare")


def _drop_user(user: str) -> None:
    if user == "nobody":
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # the last capability of this kernel, or not allowed to: the sets below are what counts
    check(libc.capset(struct.pack("Ii", CAP_VERSION_3, 0), bytes(24)), "capset")


def _limit(limits: dict[str, int]) -> None:
    for name, kind in (
        ("memory", resource.RLIMIT_AS),
        ("seconds", resource.RLIMIT_CPU),
        ("file_bytes", resource.RLIMIT_FSIZE),
        ("files", resource.RLIMIT_NOFILE),
        ("stack", resource.RLIMIT_STACK),
        ("core", resource.RLIMIT_CORE),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = limits[name] if hard == resource.RLIM_INFINITY else min(limits[name], hard)
        resource.setrlimit(kind, (limit, limit))


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 when it has none or it is switched off."""
    return max(0, libc.syscall(CREATE_RULESET, None, 0, 1))


def landlock(read: list[str], write: list[str], run: list[str]) -> None:
    """From now on only these paths are open, with what is below them: to `read`, to read and `write`, to read and `run`.

    No TCP and no signals to the outside either, where the kernel has that.
    """
    abi = check(landlock_abi() or -1, "landlock")
    handled = (1 << FS_RIGHTS_BY_ABI.get(abi, 16)) - 1
    attributes = struct.pack("QQQ", handled, NET_RIGHTS if abi >= 4 else 0, SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = check(libc.syscall(CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    for paths, rights in ((read, FS_READ | FS_READ_DIR), (run, FS_READ | FS_READ_DIR | FS_EXECUTE), (write, handled & ~FS_EXECUTE)):
        for path in paths:
            _allow(ruleset, path, rights & handled)
    check(libc.syscall(RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a folder that this system does not have needs no rule
    if not os.path.isdir(path):  # noqa: PTH112  # pathlib would cost milliseconds in every sandbox
        rights &= FS_FILE_RIGHTS
    check(libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, fd), 0), f"landlock_add_rule {path}")
    os.close(fd)
