"""The environment of a launch: accelerate reads every file of examples/accelerate, and says what the processes are to be."""

import os
from pathlib import Path

import pytest

from r1cli.commands.launch import environment
from r1cli.errors import R1Error

EXAMPLES = Path(__file__).parents[2] / "examples" / "accelerate"
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}
KINDS = {
    "ddp": {},
    "fsdp2": FSDP2,
    "fsdp2-cpu": FSDP2,
    "deepspeed-zero2": {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    "deepspeed-zero3": {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
}


def test_every_example_is_tried_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {*KINDS, "multi-node"}


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_the_example(name: str) -> None:
    found = environment(1, str(EXAMPLES / f"{name}.yaml"))
    assert found["WORLD_SIZE"] == found["LOCAL_WORLD_SIZE"] == ("2" if name == "fsdp2-cpu" else "8")
    strategies = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    assert {key for key in strategies if key in found} == {key for key in strategies if key in KINDS[name]}
    assert {key: found[key] for key in KINDS[name]} == KINDS[name]


def test_the_flag_wins_over_the_file() -> None:
    assert environment(4, str(EXAMPLES / "fsdp2.yaml"))["WORLD_SIZE"] == "4"


def test_several_machines_are_for_accelerate_launch() -> None:
    with pytest.raises(R1Error, match="is for 2 machines"):
        environment(1, str(EXAMPLES / "multi-node.yaml"))


def test_what_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("distributed_type: FSDP\nsurprise: 1\n")
    with pytest.raises(R1Error, match="is no configuration of accelerate"):
        environment(1, str(tmp_path / "odd.yaml"))


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert environment(2, None)["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment(2, None)["OMP_NUM_THREADS"] == "5"
