"""What flags, variables and files may hold: numbers that fit, variables that mean something, arrays where the command line has commas."""

import errno
import shlex
from pathlib import Path

import pytest

from r1cli.config import again, resolve, strange_variables
from r1cli.errors import R1Error, of_disk
from r1cli.io.run_dir import RunDir, check_unused

GRPO = {"model": "m", "out": "o"}


@pytest.mark.parametrize("seed", ["18446744073709551616", "-9223372036854775809", "99999999999999999999999"])
def test_a_seed_beyond_64_bits_is_refused(seed: str) -> None:
    with pytest.raises(R1Error, match=f"`--seed` must fit 64 bits, found `{seed}`") as caught:
        resolve("grpo", {**GRPO, "seed": seed}, {})
    assert caught.value.code == 2
    with pytest.raises(R1Error, match="`R1_SEED` must fit 64 bits"):
        resolve("grpo", GRPO, {"R1_SEED": seed})
    assert resolve("grpo", {**GRPO, "seed": str(2**63 - 1)}, {}).settings.seed == 2**63 - 1


def test_a_variable_that_nothing_reads_is_said_with_the_nearest() -> None:
    [said] = strange_variables({"R1_STPES": "4"})
    assert said == "`R1_STPES` is set, and no command has such a setting: did you mean `R1_STEPS`?"
    [said] = strange_variables({"R1_QQQQQQQQQQQQQQ": "4"})
    assert "R1_COMMAND_SETTING" in said


def test_those_that_mean_something_are_not() -> None:
    read = (
        "R1_STEPS",
        "R1_GRPO_LR",
        "R1_NO_PROGRESS",
        "R1_DEBUG",
        "R1_UNSAFE",
        "R1_SANDBOX_URL",
        "R1_SANDBOX_TOKEN",
        "R1CLI_LAUNCH",
        "HOME",
    )
    assert strange_variables(dict.fromkeys(read, "1")) == []
    assert strange_variables({"R1_SFT_STPES": "4"}) == []  # `r1 sft` itself refuses it


def test_an_array_in_a_file_is_the_list_with_commas(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('[grpo]\nrewards = ["accuracy", "format=0.5"]\nlora_targets = ["q_proj", "v_proj"]\n')
    found = resolve("grpo", {**GRPO, "config": str(file)}, {}).settings
    assert found.rewards == "accuracy,format=0.5"
    assert found.lora_targets == "q_proj,v_proj"
    for text in ("rewards = [1, 2]", 'system = ["a", "b"]'):
        file.write_text(f"[grpo]\n{text}\n")
        with pytest.raises(R1Error, match="must be text"):
            resolve("grpo", {**GRPO, "config": str(file)}, {})


@pytest.mark.parametrize("out", ["-", ""])
def test_a_run_goes_to_a_folder(out: str) -> None:
    with pytest.raises(R1Error, match="names no run directory") as caught:
        check_unused(out)
    assert caught.value.code == 2
    with pytest.raises(R1Error, match="names no run directory"):
        RunDir.open(out, settings=None, sources={}, command="sft")


def test_space_is_what_a_full_disk_lacks() -> None:
    rest = ", or name another place"
    assert of_disk(OSError(errno.ENOSPC, "full"), rest) == "free some space, or name another place"
    assert of_disk(OSError(errno.EACCES, "denied"), rest) == "see that one may write there, or name another place"


def test_the_line_that_goes_on_has_what_variables_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["r1", "grpo", "rows.jsonl", "--force"])
    environ = {"R1_OUT": "runs/my run", "R1_GRPO_LR": "1e-6", "R1_LR": "1", "R1_NO_MASK_TRUNCATED": "1", "R1_NO_PROGRESS": "1"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = resolve("grpo", {"model": "m"})
    line = again("grpo", found.sources)
    assert line.endswith(" r1 grpo rows.jsonl --resume")
    assert sorted(shlex.split(line)[:3]) == ["R1_GRPO_LR=1e-6", "R1_NO_MASK_TRUNCATED=1", "R1_OUT=runs/my run"]
    assert len(shlex.split(line)) == 3 + 4
    assert again("grpo", {}, reads_stdin=True) == "r1 grpo rows.jsonl --resume < ROWS"
