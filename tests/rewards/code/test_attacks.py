"""Programs that attack the judge instead of solving the task. None may pass, harm, or leave anything behind.

Each runs in the real sandbox of this machine, against the three ways of testing: a script with stdin, calls, and code of the tests.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1cli.rewards.code.sandbox import Limits, Sandbox
from tests.rewards.code.conftest import Judge

RUN = {"inputs": ["3\n"], "outputs": ["4\n"]}  # print the input plus one
CALL = ["assert add(1, 2) == 3"]
CHECK = "def check(candidate):\n    for a in range(3):\n        assert candidate(a, 2) == a + 2\n"
ENTRY = {"entry_point": "add"}

WRONG = "def add(a, b):\n    return a - b - 1\n"


def test_the_honest_programs_pass(judge: Judge) -> None:
    assert judge("print(int(input()) + 1)", RUN).passed == 1
    assert judge("def add(a, b):\n    return a + b", CALL).passed == 1
    assert judge("def add(a, b):\n    return a + b", CHECK, **ENTRY).passed == 1


EVERYWHERE = {
    "exits 0 early": "import os\nos._exit(0)",
    "leaves by sys.exit": "import sys\nsys.exit(0)",
    "prints a pass": "print('passed', 'OK', '1 passed', True, 4 if 0 else '')\nprint('{\"passed\": 0}')" + "\n" + WRONG,
    "an object equal to everything": """
class Yes(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __sub__(self, other): return 0
    def __bool__(self): return True
    def __index__(self): return 7
    def __str__(self): return '7'
def add(a, b):
    return Yes(7)
print(Yes(7))
""",
    "an object of no kind equal to everything": """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __getattr__(self, name): return Yes()
    def __call__(self, *args): return Yes()
def add(a, b):
    return Yes()
""",
    "walks the frames": """
import gc, sys
frame = sys._getframe()
seen = []
while frame is not None:
    seen.append((frame.f_globals, frame.f_locals))
    for scope in (frame.f_globals, frame.f_locals):
        for name, value in list(scope.items()):
            if isinstance(value, (list, dict)) and name in ('verdict', 'passed', 'results', 'failures'):
                value.clear() if isinstance(value, dict) else value.append('passed')
    frame = frame.f_back
for found in gc.get_objects():
    if type(found).__name__ in ('Verdict', 'Call', 'Run', 'Suite', 'Script'):
        found.passed = found.total = 1
def add(a, b):
    for found in gc.get_objects():
        if isinstance(found, dict) and 'expected' in found:
            return found['expected']
    return None
""",
    "patches the harness": """
import builtins, sys, json, os
for name, module in list(sys.modules.items()):
    if name.startswith('inside') or name in ('__main__', 'tests'):
        for key in list(vars(module)):
            if key in ('send', 'answer', 'encode', 'check', 'same_output'):
                setattr(module, key, lambda *args, **kwargs: None)
builtins.abs = builtins.range = lambda *args: []
builtins.AssertionError = type('Never', (BaseException,), {})
json.dumps = lambda *args, **kwargs: '{"passed": 0}'
"""
    + WRONG,
    "writes verdicts to every descriptor": """
import json, os
for fd in range(1, 64):
    for message in ({'passed': 0}, {'done': 1}, {'value': 3}, {'loaded': True}):
        data = json.dumps(message).encode()
        try:
            os.write(fd, len(data).to_bytes(4, 'big') + data)
        except OSError:
            pass
"""
    + WRONG,
    "raises to the judge": "def add(a, b):\n    raise AssertionError('passed')\nraise SystemExit(0)",
    "sleeps for ever": "import time\ntime.sleep(1e6)\n" + WRONG,
    "ignores signals and sleeps": """
import signal, time
for number in range(1, 64):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    time.sleep(1)
""",
    "computes for ever": "while True:\n    pass",
    "holds the interpreter in C": "10 ** 10 ** 8",
    "takes gigabytes": "x = bytearray(64 << 30)\n" + WRONG,
    "recurses for ever": "import sys\nsys.setrecursionlimit(10**9)\ndef f(n):\n    return f(n + 1)\nf(0)\n" + WRONG,
    "crashes the interpreter": "import ctypes\nctypes.string_at(0)",
}


@pytest.mark.parametrize("source", EVERYWHERE.values(), ids=EVERYWHERE)
@pytest.mark.parametrize("way", ["run", "call", "check"])
def test_attacks_fail(judge: Judge, source: str, way: str) -> None:
    tests, fields = {"run": (RUN, {}), "call": (CALL, {}), "check": (CHECK, ENTRY)}[way]
    verdict = judge(source, tests, seconds=1.0, **fields)
    assert (verdict.passed, verdict.total) == (0, 1)
    assert sum(verdict.failures.values()) == 1


def test_a_program_cannot_redefine_what_the_tests_use(judge: Judge) -> None:
    tests = ["assert abs(half(3) - 1.5) < 1e-9", "assert tuple(half(n) for n in range(2)) == (0, 0.5)"]
    cheat = "half = lambda n: 7\nabs = lambda x: 0\ntuple = lambda x: (0, 0.5)\nclass AssertionError(BaseException): pass\n"
    assert judge(cheat, tests).passed == 0
    assert judge("half = lambda n: n / 2", tests).passed == 2


def test_a_helper_of_the_prompt_is_the_tests_own_copy(judge: Judge) -> None:
    prompt = 'def poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n\ndef root(xs):\n    """A root of a line."""\n'
    tests = "def check(candidate):\n    for n in range(1, 4):\n        assert abs(poly([n, 1], candidate([n, 1]))) < 1e-6\n"
    cheat = "def poly(xs, x):\n    return 0\n\ndef root(xs):\n    return 0\n"
    assert judge(cheat, tests, prompt=prompt, entry_point="root").passed == 0
    assert judge("def root(xs):\n    return -xs[0] / xs[1]\n", tests, prompt=prompt, entry_point="root").passed == 1


def test_output_floods_are_cut_and_fail(judge: Judge) -> None:
    assert judge("print(4)\nwhile True:\n    print('x' * 65536)", RUN).failures == {"output": 1}
    assert judge("def add(a, b):\n    return [0] * 10**7", CALL).passed == 0


def test_a_short_output_does_not_pass(judge: Judge) -> None:
    tests = {"inputs": [""], "outputs": ["1\n2\n3\n"]}
    assert judge("print(1)", tests).failures == {"wrong": 1}
    assert judge("pass", tests).failures == {"wrong": 1}
    assert judge("print(1); print(2); print(3); raise ValueError", tests).failures == {"crash": 1}


def test_the_right_output_and_then_a_hang_fails(judge: Judge) -> None:
    hang = "import os, time\nprint(4, flush=True)\nos.close(1)\nos.close(0)\ntime.sleep(1e6)"
    assert judge(hang, RUN, seconds=1.0).failures == {"timeout": 1}


def output(sandbox: Sandbox, source: str, limits: Limits | None = None) -> str:
    """What a script prints in the sandbox."""
    with sandbox.start({"mode": "script", "source": source}, limits or Limits(seconds=5)) as process:
        return process.finish().stdout.decode()


def refused(sandbox: Sandbox, *statements: str) -> list[str]:
    """The statements that did not raise an error inside the sandbox."""
    lines = ["import ctypes, os, signal, socket, subprocess, sys, threading", f"for statement in {list(statements)!r}:"]
    lines += ["    try:", "        exec(statement)", "    except (OSError, AssertionError):", "        continue", "    print(statement)"]
    return output(sandbox, "\n".join(lines)).splitlines()


def test_no_new_processes(sandbox: Sandbox) -> None:
    statements = ["os.fork()", "os.posix_spawn('/bin/true', ['true'], {})", "subprocess.run(['/bin/true'])"]
    statements += ["os.execv('/bin/true', ['true'])", "os.execv(sys.executable, ['python'])", "assert os.system('true') == 0"]
    assert refused(sandbox, *statements, "os.setsid()", "os.setpgid(0, 0)") == []
    assert output(sandbox, "import threading; t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()") == "thread\n"


def test_a_fork_bomb_and_a_daemon_leave_nothing(judge: Judge) -> None:
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    daemon = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if not os.fork():\n        time.sleep(9)\n    os._exit(0)\nprint(4)"
    before = _own_processes()
    assert judge(bomb, RUN, seconds=1.0).passed == 0
    assert judge(daemon, RUN, seconds=1.0).passed == 0
    assert _own_processes() <= before


def _own_processes() -> set[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    return {int(line.split(None, 1)[0]) for line in listed if "inside/child.py" in line and "ps -eo" not in line}


def test_no_signals_to_the_parent_or_others(sandbox: Sandbox) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as victim:
        pids = (os.getpid(), victim.pid, -1, 0)
        statements = [f"os.kill({pid}, {number})" for pid in pids for number in (0, signal.SIGTERM, signal.SIGKILL)]
        statements += ["os.kill(os.getppid(), 9)", "os.killpg(os.getpgid(0), 9)", f"os.pidfd_open({victim.pid})"]
        assert refused(sandbox, *statements) == []
        assert victim.poll() is None
        victim.kill()


def test_no_memory_files_or_environment_of_others(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1_TEST_SECRET", "answer-4711")
    secret = tmp_path / "tests.jsonl"
    secret.write_text("answer-4711")
    secret.chmod(0o644)
    pid = os.getpid()
    paths = [str(secret), "/etc/passwd", "/proc/self/environ", __file__, *(f"/proc/{pid}/{name}" for name in ("environ", "mem", "maps"))]
    statements = [f"open({path!r}).read()" for path in paths]
    statements += [f"os.listdir({path!r})" for path in ("/", "/proc", str(tmp_path), "/tmp", str(Path.cwd()), str(Path.home()))]
    statements += [f"assert ctypes.CDLL(None).ptrace(16, {pid}, 0, 0) == 0", f"os.readlink('/proc/{pid}/exe')"]
    statements += ["assert 'answer-4711' in str(os.environ)"]
    assert refused(sandbox, *statements) == []


def test_no_network(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        statements = [f"socket.create_connection(('127.0.0.1', {port}))", "socket.socket(socket.AF_UNIX)", "socket.socketpair()",
                      "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"]  # fmt: skip
        assert refused(sandbox, *statements) == []


def test_writing_is_bounded_and_stays_in_the_box(sandbox: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "harm"
    elsewhere = [f"open({path!r}, 'w')" for path in (str(target), "/dev/shm/harm", "/tmp/harm")]
    assert refused(sandbox, *elsewhere, "os.memfd_create('x')") == []
    assert not target.exists()
    assert output(sandbox, "import os\nprint(os.listdir('.'))\nopen('a', 'w').write('b')\nprint(open('a').read())") == "[]\nb\n"
    big = "try:\n    f = open('big', 'wb')\n    while True:\n        f.write(bytes(1 << 20))\nexcept OSError:\n    print('bounded')"
    assert output(sandbox, "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + big) == "bounded\n"
    many = "import signal\nn = 0\nwhile True:\n    n += 1\n    open(str(n), 'wb').write(bytes(8 << 20))"
    with sandbox.start({"mode": "script", "source": many}, Limits(seconds=10)) as process:
        assert process.finish().status == "disk"
        box = process.box
    assert not Path(box).exists()


def test_the_process_dies_with_its_parent() -> None:
    script = (
        "from r1cli.rewards.code.levels import available\nfrom r1cli.rewards.code.sandbox import Limits\nimport time\n"
        "process = available().start({'mode': 'script', 'source': 'while True: pass'}, Limits(seconds=50))\n"
        "print(process._process.pid, flush=True)\ntime.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            break
        time.sleep(0.1)
    else:
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the sandboxed process outlived its parent")


def test_limits_cannot_be_raised_nor_rights_regained(sandbox: Sandbox) -> None:
    calls = ("unshare(0x10000000)", "prctl(1, 0, 0, 0, 0)", "mount(b'none', b'.', b'tmpfs', 0, 0)", "setns(0, 0)", "setgroups(0, None)")
    statements = [f"assert ctypes.CDLL(None).{call} == 0" for call in calls]
    statements += ["import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (10**6, 10**6))", "os.chroot('.')", "os.mkfifo('/tmp/x')"]
    assert refused(sandbox, *statements) == []
