"""A seccomp filter in classic BPF: system calls that a program of the tests never needs are refused with EPERM.

Everything else is allowed, so that any pure-Python or C++ program runs. Refused: network and local sockets, new processes (threads are
fine), exec, signals to others, debugging and reading other processes, leaving the session, mounting, namespaces, kernel keys, io_uring,
bpf, shared memory that outlives the process, raising limits, undoing the parent death signal. Numbers for x86_64 and aarch64; any other
machine raises OSError. See man 2 seccomp, linux/filter.h and linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False  # `typing` costs milliseconds in every sandbox
if TYPE_CHECKING:
    from typing import Any

PR_SET_SECCOMP, MODE_FILTER = 22, 2
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM, ENOSYS = 1, 38
CLONE_THREAD = 0x00010000
X32 = 0x40000000
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, MACHINE, FIRST_ARGUMENT, THIRD_ARGUMENT = 0, 4, 16, 32  # offsets in struct seccomp_data (little endian: the low half first)

# name: (x86_64, aarch64); None where the machine does not have the call
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "fork": (57, None), "vfork": (58, None), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "kcmp": (312, 272), "setsid": (112, 157),
    "setpgid": (109, 154), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "bpf": (321, 280), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161), "setdomainname": (171, 162),
    "personality": (135, 92), "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "msgget": (68, 186), "msgctl": (71, 187), "semget": (64, 190), "mq_open": (240, 180), "mknod": (133, None),
    "mknodat": (259, 33), "prctl": (157, 167), "setrlimit": (160, 164), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "ioperm": (173, None), "iopl": (172, None), "modify_ldt": (154, None), "fanotify_init": (300, 262), "sched_setattr": (314, 274),
}  # fmt: skip
REFUSED_TO_PROGRAMS = {"execve": (59, 221), "execveat": (322, 281)}
NEEDED_TO_SPAWN = ("fork", "vfork", "prctl", "setrlimit")  # what a compiler driver needs besides clone
CLONE, CLONE3, KILL_CALL, TGKILL, PRLIMIT = (56, 220), (435, 435), (62, 129), (234, 131), (302, 261)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def supported() -> bool:
    """Whether the filter knows this machine's system call numbers."""
    return os.uname().machine in MACHINES


def install(libc: Any, spawn: bool, execute: bool) -> None:
    """Filter this process from now on. spawn: it may start processes (a compiler); execute: it may call exec. Raises OSError."""
    if not supported():
        raise OSError(f"no system call table for {os.uname().machine}")
    program = build(os.uname().machine, os.getpid(), spawn, execute)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(PR_SET_SECCOMP, MODE_FILTER, header, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def build(machine: str, own: int, spawn: bool, execute: bool) -> bytes:
    """The filter's instructions. `own` is the process id that signals may go to."""
    column, audit = MACHINES[machine]
    code = [_op(LOAD, MACHINE), _op(JUMP_EQUAL, audit, 1, 0), _op(RETURN, KILL), _op(LOAD, NUMBER)]
    if machine == "x86_64":
        code += [_op(JUMP_AT_LEAST, X32, 0, 1), _op(RETURN, REFUSE | EPERM)]
    refused = {name: numbers for name, numbers in REFUSED.items() if not (spawn and name in NEEDED_TO_SPAWN)}
    if not execute:
        refused |= REFUSED_TO_PROGRAMS
    for numbers in refused.values():
        if numbers[column] is not None:
            code += [_op(JUMP_EQUAL, numbers[column], 0, 1), _op(RETURN, REFUSE | EPERM)]
    if not spawn:
        code += [_op(JUMP_EQUAL, CLONE3[column], 0, 1), _op(RETURN, REFUSE | ENOSYS)]  # glibc then falls back to clone
        code += _only(CLONE[column], FIRST_ARGUMENT, _op(JUMP_SET, CLONE_THREAD, 0, 1))
        code += _only(PRLIMIT[column], THIRD_ARGUMENT, _op(JUMP_EQUAL, 0, 0, 1))  # reading limits only
    for call in (KILL_CALL, TGKILL):
        if not spawn:
            code += _only(call[column], FIRST_ARGUMENT, _op(JUMP_EQUAL, own, 0, 1))
    code.append(_op(RETURN, ALLOW))
    return b"".join(code)


def _only(number: int, argument: int, test: bytes) -> list[bytes]:
    """Allow a call only where the test on the low half of an argument jumps to its first branch."""
    return [_op(JUMP_EQUAL, number, 0, 4), _op(LOAD, argument), test, _op(RETURN, ALLOW), _op(RETURN, REFUSE | EPERM)]


def _op(code: int, operand: int | None, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("HBBI", code, true, false, operand or 0)
