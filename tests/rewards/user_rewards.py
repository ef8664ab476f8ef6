"""Reward functions as users write them, good and bad, for the tests of users' functions and of the pool."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Any

constant = [lambda row: 0.25][0]


def polite(row: dict[str, Any]) -> float:
    sys.stdout.write("this goes to stderr\n")
    sys.stdout.flush()
    return 1.0 if "please" in row["completion"] else 0.0


def lengths(rows: list[dict[str, Any]]) -> list[float]:
    return [float(len(row["completion"])) for row in rows]


def trl_exact(completions: list[str], answer: list[str], **columns: Any) -> list[float | None]:
    assert set(columns) >= {"prompts", "id"}
    return [None if gold is None else float(text == gold) for text, gold in zip(completions, answer, strict=True)]


def trl_chat(prompts: list[Any], completions: list[list[dict[str, str]]]) -> list[float]:
    return [float(c[0]["role"] == "assistant" and c[0]["content"] == "hi") for c in completions]


async def waits(row: dict[str, Any]) -> float:
    await asyncio.sleep(60 if row["completion"] == "late" else 0.01)
    return 1.0


async def waits_together(rows: list[dict[str, Any]]) -> list[float]:
    await asyncio.sleep(0.01)
    return [1.0] * len(rows)


def misbehaves(row: dict[str, Any]) -> Any:
    """What the row says."""
    todo = row["completion"]
    if todo == "hang":
        while True:
            pass
    if todo == "sleep":
        time.sleep(3600)
    if todo == "segfault":
        ctypes.string_at(0)
    if todo == "memory":
        return float(len(bytearray(1 << 40)))
    if todo == "exit":
        os._exit(0)
    if todo == "raise":
        raise ValueError("on purpose")
    if todo == "close":
        os.closerange(3, 100)
    return {"text": "one", "nan": float("nan"), "true": True, "pid": os.getpid(), "none": None}.get(todo, 1.0)


def ends_children(row: dict[str, Any]) -> float:
    """How many of two processes, one by fork and one by exec, `terminate` ends (a reward may bound its own work that way)."""
    forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    forked.start()
    other = subprocess.Popen(["sleep", "60"])
    time.sleep(0.2)
    for process in (forked, other):
        process.terminate()
    forked.join(5)
    return float((forked.exitcode == -signal.SIGTERM) + (other.wait(5) == -signal.SIGTERM))


def naps(row: dict[str, Any]) -> float:
    time.sleep(1)
    return 1.0


def too_few(rows: list[dict[str, Any]]) -> list[float]:
    return [1.0]


def unclear(first: int, second: int) -> float:
    return 0.0


def other_column(completions: list[str], hardness: list[float]) -> list[float]:
    return hardness
