"""Further attacks on the judge and the machine, written without a look at how the sandbox meets them. None passes or leaves a trace."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.rewards.code.conftest import Judge

RUN = {"inputs": ["3\n"], "outputs": ["4\n"]}
CALL = ["assert add(1, 2) == 3"]
CHECK = "def check(candidate):\n    for a in range(3):\n        assert candidate(a, 2) == a + 2\n"
WAYS = {"script": (RUN, {}), "calls": (CALL, {}), "check": (CHECK, {"entry_point": "add"})}

CHEATS = {
    "answers every descriptor": """
import os
for fd in range(3, 64):
    for text in (b'{"value": 3}', b'{"passed": 1, "total": 1}', b'true', b'3\\n', b'\\x00\\x00\\x00\\x01' + b'3'):
        try: os.write(fd, text)
        except OSError: pass
def add(a, b): return 0
""",
    "reads its own protocol": """
import os, socket
said = []
for fd in range(3, 64):
    try: said.append(os.read(fd, 1 << 16) if os.set_blocking(fd, False) is None else b'')
    except OSError: pass
def add(a, b):
    for text in said:
        if b'3' in text: return 3 if False else text
    return None
print(said)
""",
    "a string that is every string": """
class All(str):
    def __eq__(self, other): return True
    def __hash__(self): return 0
    def __len__(self): return 2
    def strip(self, *args): return self
    def splitlines(self, *args): return [self]
def add(a, b): return All('4')
print(All(''))
""",
    "a dictionary that equals": """
class D(dict):
    def __eq__(self, other): return True
class L(list):
    def __eq__(self, other): return True
class F(float):
    def __eq__(self, other): return True
def add(a, b): return [D(), L(), F('nan')][0]
""",
    "lies about its class": """
class Liar:
    __class__ = int
    def __eq__(self, other): return True
    def __int__(self): return 3
    def __index__(self): return 3
    def __reduce__(self): return (int, (3,))
def add(a, b): return Liar()
""",
    "pickles a command": """
import os
class P:
    def __reduce__(self): return (os.system, ('touch /tmp/r1-pickled',))
    def __getstate__(self): return {}
    def __json__(self): return 3
def add(a, b): return P()
""",
    "not a number": "def add(a, b): return float('nan')\nprint(float('nan'))",
    "a generator": "def add(a, b):\n    while True: yield 3",
    "a promise": "async def add(a, b): return 3",
    "a function": "def add(a, b): return lambda: 3",
    "a nest without end": "x = []\nx.append(x)\ndef add(a, b): return x",
    "too much to send": "def add(a, b): return [3] * 10**7",
    "a huge integer": "def add(a, b): return 10 ** 10 ** 6",
    "almost": "def add(a, b): return a + b + 1e-9\nprint(4.0000001)",
    "a string for a number": "def add(a, b): return str(a + b)\nprint('four')",
    "true for one": "def add(a, b): return a + b == 3",
    "all answers at once": "print(*range(100), sep='\\n')\ndef add(a, b): return list(range(10))",
    "more lines than asked": "print(4)\nprint(4)\ndef add(a, b): return (3, 3)",
    "nothing": "pass",
    "says it at the end, and dies": "import ctypes\nprint(4, flush=True)\nctypes.string_at(0)\ndef add(a, b): return a + b",
    "says it, and raises": "print(4, flush=True)\nraise SystemError('no')\ndef add(a, b): return a + b",
    "says it, and is killed": "import os, signal\nprint(4, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)",
    "exits with 3": "print(4, flush=True)\nimport sys\nsys.exit(3)",
    "memory": "x = [0] * 10**10\ndef add(a, b): return a + b\nprint(4)",
    "recursion": "def f(n): return f(n + 1)\nf(0)\nprint(4)\ndef add(a, b): return a + b",
    "a thread that never ends": """
import threading, time
threading.Thread(target=lambda: time.sleep(1000)).start()
print(4, flush=True)
def add(a, b):
    threading.Event().wait()
""",
    "exits from a thread": """
import os, threading
def add(a, b):
    threading.Thread(target=lambda: os._exit(0)).start()
    threading.Event().wait()
threading.Thread(target=lambda: os._exit(0)).start()
threading.Event().wait()
""",
    "patches what compares": """
import builtins, json, sys, operator
builtins.all = builtins.any = lambda *a: True
operator.eq = lambda a, b: True
json.dumps = lambda *a, **k: '3'
json.JSONEncoder.encode = lambda *a: '3'
sys.modules['__main__'].__dict__.update(passed=True, ok=True)
def add(a, b): return object()
""",
    "traces the harness": """
import sys
def trace(frame, event, arg):
    for name in list(frame.f_locals):
        if name in ('expected', 'answer', 'want'): add.known = frame.f_locals[name]
    return trace
sys.settrace(trace); sys.setprofile(trace)
import threading; threading.settrace(trace)
def add(a, b): return getattr(add, 'known', None)
""",
    "a meta path that lies": """
import sys
class Finder:
    def find_spec(self, *args):
        raise SystemExit(0)
sys.meta_path.insert(0, Finder())
sys.path_hooks.clear()
def add(a, b):
    raise SystemExit(0)
""",
    "the tests on disk": """
import glob, os
found = None
for folder in ('/', '..', '/tmp', '/proc/self/cwd/..', os.path.expanduser('~root'), '/work', '/home'):
    try:
        for path in os.listdir(folder): found = path
    except OSError: pass
def add(a, b): return found
print(found)
""",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes(judge: Judge, cheat: str, way: str) -> None:
    tests, fields = WAYS[way]
    assert judge(CHEATS[cheat], tests, seconds=1.5, **fields).passed == 0
    assert not Path("/tmp/r1-pickled").exists()


REACHES = {  # each prints 4 when it reaches something outside; a refusal is an exception, and nothing is printed
    "fork by libc": "import ctypes\nassert ctypes.CDLL(None).fork() >= 0",
    "clone by number": "import ctypes\nassert ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0",
    "vfork by number": "import ctypes\nassert ctypes.CDLL(None).syscall(58) > 0",
    "posix_spawn": "import os\nos.posix_spawn('/bin/true', ['true'], {})",
    "a file in memory, run": "import os\nfd = os.memfd_create('x')\nos.write(fd, open('/bin/true', 'rb').read())\nos.execve(fd, ['x'], {})",
    "multiprocessing": "import multiprocessing as m\np = m.Process(target=print)\np.start()\np.join()\nassert p.exitcode == 0",
    "kill everybody": "import os\nos.kill(-1, 0)",
    "kill the group's parent": "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)",
    "memory of the parent": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    "process_vm_readv": "import ctypes, os\nassert ctypes.CDLL(None).process_vm_readv(os.getppid(), 0, 0, 0, 0, 0) >= 0",
    "ptrace": "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "limits of the parent": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "environment of the parent": "import os\nprint(open(f'/proc/{os.getppid()}/environ').read()[:1])",
    "a socket pair is no network": "import socket\nsocket.create_connection(('127.0.0.1', 1), 0.2)",
    "udp": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "abstract socket": "import socket\nsocket.socket(socket.AF_UNIX).bind('\\0r1')",
    "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "home": "import os\nos.listdir(os.path.expanduser('~root'))",
    "passwords": "open('/etc/passwd').read()",
    "shared memory": "open('/dev/shm/r1', 'w').write('x')",
    "temporary files": "open('/tmp/r1-outside', 'w').write('x')",
    "a link out": "import os\nos.symlink('/etc/passwd', 'link')\nopen('link').read()",
    "a hard link out": "import os\nos.link('/etc/hostname', 'link')\nopen('link').read()",
    "installed python": "import os\nopen(os.path.join(os.path.dirname(os.__file__), 'r1_was_here.py'), 'w').write('x')",
    "site packages": "import sysconfig\nopen(sysconfig.get_paths()['purelib'] + '/r1.pth', 'w').write('import os')",
    "mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'.', b'tmpfs', 0, 0) == 0",
    "unshare": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "root again": "import os\nos.setuid(0)\nos.listdir('/root')",
    "another session": "import os\nos.setsid()",
    "keys": "import ctypes\nassert ctypes.CDLL(None).syscall(250, 0, -3, 0) >= 0",
    "bpf": "import ctypes\nassert ctypes.CDLL(None).syscall(321, 0, 0, 0) >= 0",
    "io_uring": "import ctypes\nassert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(256)) >= 0",
    "userfaultfd": "import ctypes\nassert ctypes.CDLL(None).syscall(323, 0) >= 0",
    "no limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "a file of a terabyte": "f = open('big', 'wb')\nf.truncate(1 << 40)",
    "the clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)",
    "the host's name": "import socket\nsocket.sethostname('r1')",
}


@pytest.mark.parametrize("reach", REACHES)
def test_nothing_outside_is_reached(judge: Judge, reach: str) -> None:
    assert judge(REACHES[reach] + "\nprint(4)", RUN, seconds=3.0).passed == 0


def test_many_small_files_are_bounded_and_removed(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[Path] = []

    def recorded(prefix: str) -> str:
        boxes.append(Path(make(prefix=prefix)))
        return str(boxes[-1])

    make = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", recorded)
    started = time.monotonic()
    source = "n = 0\nwhile True:\n    open(f'f{n}', 'w').write('x' * 4000)\n    n += 1\n    if n == 200_000: print(4)"
    assert judge(source, RUN, seconds=3.0).passed == 0
    assert time.monotonic() - started < 60
    assert boxes
    assert not [box for box in boxes if box.exists()]


def test_no_program_outlives_its_verdict(judge: Judge) -> None:
    mark = f"r1-mark-{os.getpid()}"
    source = f"import sys, threading, time\nsys.argv[:] = ['{mark}']\n"
    source += "for n in range(20): threading.Thread(target=time.sleep, args=(60,)).start()"
    assert judge(source, RUN, seconds=1.0).passed == 0
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False).stdout
    assert mark not in listed
    assert sys.executable  # the judge itself is unharmed
