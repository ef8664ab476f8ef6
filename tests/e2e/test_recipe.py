"""The demo's recipe at toy size: every command of the R1 recipe, in order, as the Makefile runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_recipe_runs_and_continues(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["make", "-f", "examples/demo/Makefile", "TOY=1", f"D={tmp_path}/demo", f"PYTHON={sys.executable}"]
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    demo = tmp_path / "demo"
    scores = json.loads((demo / "scores.json").read_text())
    assert [entry["stage"][:1] for entry in scores] == ["b", "1", "2", "3", "4", "s", "5"]
    for entry in scores:
        assert {"stage", "model", "problems", "samples", "pass@1", "low", "high", "cons@k", "mean_tokens", "seconds"} <= set(entry)
        assert 0 <= entry["low"] <= entry["pass@1"] <= entry["high"] <= 1
        assert (Path(entry["model"]) / "model.safetensors").is_file()
    assert "<html" in (demo / "report.html").read_text()
    kept = {p: p.stat().st_mtime_ns for p in demo.glob("stages/*/final/model.safetensors")}
    assert len(kept) == 7, "five stages and two reward models"
    judged = {entry["stage"][:1]: entry["preference"] for entry in scores if entry["preference"]}
    assert set(judged) == {"3", "4"} and all(0 < value < 1 for found in judged.values() for value in found.values())
    assert all(set(found) == {"helpful", "harmless"} for found in judged.values())
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert {p: p.stat().st_mtime_ns for p in kept} == kept  # a second make trains nothing again
