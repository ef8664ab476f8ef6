"""Two real processes (gloo) take the same step as one, for every objective that promises it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.runs import every_run
from tests.train.test_resume import same_figures
from tests.train.toy import largest_difference, weights

ROOT = Path(__file__).parents[2]
LIMIT = 600  # seconds; only so that a hang ends


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pair_of(module: str, *arguments: str, shared: dict[str, str] | None = None) -> Iterator[None]:
    """`module` in two processes beside what is done inside; they have ended well at its end. shared: variables of a launch of r1's."""
    if shared is None:
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", module, *arguments]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    try:
        yield
        for process in processes:
            _, errors = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def both(tiny: Path, accelerator: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what one process found, what each of two processes found)."""
    out = tmp_path_factory.mktemp("processes")
    with pair_of("tests.train.runs", str(tiny), str(out)):
        alone = every_run(accelerator, str(tiny))
    return alone, [torch.load(out / f"{rank}.pt") for rank in range(2)]


RUNS = ["grpo", "dr_grpo", "dapo", "several updates", "bonus", "dynamic", "asked to end", "batch", "sft", "one row"]
RUNS += ["runs out", "pairs", "labels", "one pair", "gspo", "cispo", "bnpo", "straight", "goes on", "held out", "one held out"]


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_take_the_step_of_one(both: Any, new_policy: Any, run: str) -> None:
    alone, pair = both
    assert largest_difference(pair[0][run][0], pair[1][run][0]) == 0.0
    assert largest_difference(pair[0][run][0], alone[run][0]) < 2e-6
    assert largest_difference(alone[run][0], weights(new_policy())) > 1e-4  # the step moved something


@pytest.mark.parametrize("run", RUNS)
def test_every_process_reports_the_figures_of_all(both: Any, run: str) -> None:
    alone, pair = both
    for one, first, second in zip(alone[run][1], pair[0][run][1], pair[1][run][1], strict=True):
        timed = {name for name in one if "second" in name}
        expected = {name: value for name, value in one.items() if name not in timed}
        for record in (first, second):
            assert {name: value for name, value in record.items() if name not in timed} == pytest.approx(expected, abs=2e-5, rel=1e-4)


def test_a_run_that_is_cut_in_a_rollout_goes_on_as_if_it_had_not(both: Any) -> None:
    for found in (both[0], *both[1]):
        assert found["cut after"] == 1
        assert largest_difference(found["goes on"][0], found["straight"][0]) == 0.0
        assert same_figures(found["goes on"][1], found["straight"][1])


@pytest.mark.parametrize("run", ["held out", "one held out"])
def test_every_process_measures_its_share_of_what_is_held_out(both: Any, run: str) -> None:
    """With one sample a process has none; the figures are compared above."""
    losses = [record["held_out_loss"] for record in both[0][run][1]]
    assert len(set(losses)) == len(losses) > 1


def test_one_process_out_of_memory_halves_the_micro_batches_of_all(both: Any) -> None:
    for found in (both[0], *both[1]):
        assert [text.split(":")[0] for text in found["said"]] == ["out of memory with micro-batches of 200 tokens"]


def test_a_loss_without_a_number_in_one_process_ends_all(both: Any) -> None:
    alone, (first, second) = both
    assert alone["broken"] == second["broken"] == "the loss of step 1 is not finite (nan); the weights were not touched"
    assert first["broken"].startswith("the loss of step 1 is not finite in another process")
