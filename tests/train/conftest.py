"""The accelerator of one process on the CPU, and fresh policies of the tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def accelerator() -> Any:
    from accelerate import Accelerator

    return Accelerator(cpu=True, mixed_precision="no")


@pytest.fixture
def new_policy(tiny: Path) -> Callable[..., Any]:
    """Makes a fresh float32 policy of the same tiny weights at every call."""
    from r1cli.train.model import load_policy

    return lambda **options: load_policy(str(tiny), **options)
