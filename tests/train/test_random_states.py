"""Every process goes on with its own random numbers."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from r1cli.errors import R1Error
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


@pytest.mark.parametrize("number", [0, 2])
def test_a_checkpoint_of_another_number_of_processes_changes_nothing(tmp_path: Path, number: int) -> None:
    for one in range(2):
        save_random(process(one), tmp_path)
    torch.manual_seed(9)
    random.seed(9)
    expected = draw()
    torch.manual_seed(9)
    random.seed(9)
    load_random(process(number, of=3), tmp_path)
    assert draw() == expected


@pytest.mark.parametrize(
    ("lost", "said"), [(0, "has no `random_state_0.pt` to resume from"), (1, "random_state_1.pt` is missing: each of")]
)
def test_a_lost_state_is_refused(tmp_path: Path, lost: int, said: str) -> None:
    for number in range(2):
        save_random(process(number), tmp_path)
    (tmp_path / file_name(lost)).unlink()
    with pytest.raises(R1Error) as caught:
        load_random(process(lost), tmp_path)
    assert said in caught.value.message and caught.value.code == 2


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
