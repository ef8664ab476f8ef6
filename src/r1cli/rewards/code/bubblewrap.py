"""Start a process through bubblewrap (`bwrap`): in namespaces of every kind, where it sees only its own processes and the folders it needs.

The process then takes its rights away as at every other level (`inside/confine.py`): Landlock and seccomp hold behind the namespaces.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from r1cli.rewards.code.box import LIBRARIES, python_folders

START_BYTES = 4096


def start(
    popen: Callable[..., "subprocess.Popen[bytes]"], command: list[str], fds: tuple[int, ...], box: str, seen: tuple[str, ...]
) -> tuple["subprocess.Popen[bytes]", int]:
    """(the bwrap process, the number of the process inside it as seen from here). Raises OSError when there is no bwrap or it fails."""
    program = shutil.which("bwrap")
    if program is None:
        raise FileNotFoundError("bwrap")
    ours, theirs = os.pipe()
    try:
        arguments = [program, *_arguments(box, seen), "--info-fd", str(theirs), "--", *command]
        process = popen(arguments, pass_fds=(*fds, theirs), start_new_session=True)
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    with open(ours, "rb") as info:  # noqa: PTH123  # a descriptor
        said = info.read(START_BYTES)
    try:
        return process, int(json.loads(said)["child-pid"])
    except (ValueError, KeyError, TypeError):
        process.kill()
        process.wait()
        raise OSError("bwrap starts no process here") from None


def _arguments(box: str, seen: tuple[str, ...]) -> list[str]:
    """New namespaces, libraries and Python read-only, the box writable, nothing else of the file system."""
    folders = ["/usr", "/bin", *LIBRARIES, sys.prefix, sys.base_prefix, str(Path(sys.executable).parent), *python_folders(), *seen]
    folders.append(str(Path(__file__).parent / "inside"))
    binds = [word for folder in dict.fromkeys(folders) for word in ("--ro-bind-try", folder, folder)]
    own = ["--proc", "/proc", "--dev", "/dev", "--bind", box, box, "--chdir", box]
    return ["--unshare-all", "--die-with-parent", "--as-pid-1", *binds, *own]
