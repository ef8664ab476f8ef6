"""Every process goes on with its own random numbers."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from r1cli.train.random_states import file_name, load_random, save_random


def process(number: int, of: int = 2, device: str = "cpu") -> Any:
    return SimpleNamespace(process_index=number, num_processes=of, device=torch.device(device))


def draw(device: str = "cpu") -> tuple[list[float], float, float]:
    """Of each generator; `gauss` keeps half of what it draws for the next time."""
    return torch.rand(3, device=device).tolist(), random.random(), random.gauss(0.0, 1.0)


def test_each_process_draws_on_where_it_was(tmp_path: Path) -> None:
    expected = []
    for number in range(2):
        torch.manual_seed(number)
        random.seed(number)
        draw()
        save_random(process(number), tmp_path)
        expected.append(draw())
    assert expected[0] != expected[1]
    for number in (1, 0):
        draw()
        load_random(process(number), tmp_path)
        assert draw() == expected[number]


@pytest.mark.parametrize("kind", ["another number of processes", "no file"])
def test_a_checkpoint_that_says_nothing_of_a_process_changes_nothing(tmp_path: Path, kind: str) -> None:
    for number in range(2):
        save_random(process(number), tmp_path)
    if kind == "no file":
        (tmp_path / file_name(0)).unlink()
    torch.manual_seed(9)
    random.seed(9)
    expected = draw()
    torch.manual_seed(9)
    random.seed(9)
    load_random(process(0, of=3 if kind != "no file" else 2), tmp_path)
    assert draw() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_generator_of_a_gpu_is_kept_and_a_cpu_run_goes_on_without_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    draw("cuda")
    save_random(process(0, 1, "cuda:0"), tmp_path)
    expected = draw("cuda")
    draw("cuda")
    load_random(process(0, 1, "cuda:0"), tmp_path)
    assert draw("cuda") == expected
    load_random(process(0, 1, "cpu"), tmp_path)
