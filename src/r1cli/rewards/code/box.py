"""What a sandboxed process finds around it: its directory, its environment, the folders it may read."""

import contextlib
import os
import shutil
import stat
import sys
import sysconfig

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def environment(box: str) -> dict[str, str]:
    """Nothing of the caller's: no tokens, no paths. The hash seed is fixed, so that a program does the same every time."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": box, "TMPDIR": box, "PYTHONHASHSEED": "0", **threads}


def python_folders() -> list[str]:
    """The folders of the standard library and of installed packages (numpy, when it is there); not the current one."""
    paths = sysconfig.get_paths()
    standard = paths["stdlib"]
    folders = [standard, f"{standard}/lib-dynload", paths["platstdlib"], f"{sys.base_prefix}/lib", paths["purelib"], paths["platlib"]]
    return list(dict.fromkeys(folders))


def remove(box: str) -> None:
    """Remove the directory, whatever permissions the program has left on what is in it."""
    for folder, _, _ in os.walk(box):
        with contextlib.suppress(OSError):
            os.chmod(folder, stat.S_IRWXU)  # noqa: PTH101
    shutil.rmtree(box, ignore_errors=True)
