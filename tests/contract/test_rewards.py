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


def test_every_reward_has_a_formula_its_fields_its_options_and_an_example_that_is_read() -> None:
    from r1cli.rewards.registry import kinds, make, parse_specs

    text = run().stdout
    listed = {one["name"]: one for one in json.loads(run("--json").stdout)["rewards"]}
    for kind in kinds():
        paragraph = next(part for part in text.split("\n\n") if part.startswith(f"{kind.name}: "))
        assert f"formula  {kind.formula}" in paragraph
        assert f"example  --rewards {kind.example}" in paragraph
        assert all(f"option   {option.name}=" in paragraph and option.help in paragraph for option in kind.options)
        assert [option["name"] for option in listed[kind.name]["options"]] == [option.name for option in kind.options]
        assert all(field in paragraph for field in kind.fields)
        specs = parse_specs(kind.example)
        assert kind.name in [spec.name for spec in specs]
        assert all(make(spec) for spec in specs if spec.name != "code")  # code needs a sandbox, which has its own tests


def test_json_is_one_object() -> None:
    listed = json.loads(run("--json").stdout)["rewards"]
    accuracy = next(one for one in listed if one["name"] == "accuracy")
    assert {"name", "summary", "formula", "fields", "options", "maximum", "example"} <= set(accuracy)
    assert accuracy["options"][0]["name"] == "style"
