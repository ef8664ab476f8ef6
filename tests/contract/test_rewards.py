"""`r1 rewards` in a process of its own."""

import json
import subprocess
import sys


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "r1cli", "rewards", *args], capture_output=True, text=True, timeout=120)


def test_it_lists_every_reward_on_stdout() -> None:
    from r1cli.rewards.registry import KINDS

    result = run()
    assert result.returncode == 0
    for name in KINDS:
        assert f"\n{name}: " in result.stdout
    assert "path/to/file.py:function" in result.stdout


def test_json_is_one_object() -> None:
    listed = json.loads(run("--json").stdout)["rewards"]
    accuracy = next(one for one in listed if one["name"] == "accuracy")
    assert {"name", "summary", "formula", "fields", "options", "maximum", "example"} <= set(accuracy)
    assert accuracy["options"][0]["name"] == "style"
