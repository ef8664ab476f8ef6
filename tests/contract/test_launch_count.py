"""How many processes a launch has, when a flag, accelerate's configuration and a run's config.json each say a number."""

from pathlib import Path

from tests.contract.conftest import Run
from tests.contract.test_launch import FSDP2, SFT, assert_same, files


def who_saved(run: Path) -> set[str]:
    """The files of the processes that took part."""
    return {path.name for path in (run / "checkpoints").glob("*/random_state_*.pt")}


def test_one_process_may_be_asked_for_beside_a_configuration_of_two(r1: Run, tiny: Path, tmp_path: Path) -> None:
    files(tmp_path)
    for out, how in (("plain", []), ("one", [*FSDP2, "--num-processes", "1"])):
        done = r1("sft", "--model", str(tiny), *SFT, *how, "-o", out, "lessons.jsonl", timeout=100)
        assert done.returncode == 0, done.stderr
        assert who_saved(tmp_path / out) == {"random_state_0.pt"}
    assert_same(tmp_path / "one", tmp_path / "plain")


def test_a_run_of_a_configuration_has_as_many_processes_when_it_is_made_again(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """Its config.json has `num_processes: 1`, the default."""
    files(tmp_path)
    for source, out in ((["--model", str(tiny), *SFT, *FSDP2], "two"), (["-c", "two"], "again")):
        done = r1("sft", *source, "-o", out, "lessons.jsonl")
        assert done.returncode == 0, done.stderr
        assert who_saved(tmp_path / out) == {"random_state_0.pt", "random_state_1.pt"}
