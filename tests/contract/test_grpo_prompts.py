"""Prompts of `r1 grpo` that are too long are counted before the first step; none ends a run in the middle."""

import json
from pathlib import Path

from tests.contract.conftest import Run, assert_error

FLAGS = "--engine transformers --rewards mine.py:brief --prompts-per-step 2 --group-size 2 --steps 3 --dtype float32 --no-mask-truncated "
FLAGS += "--max-completion-length 4,8@1 --lr 1e-3 --beta 0"


def test_prompts_without_room_are_left_out_and_counted(r1: Run, tiny: Path, tmp_path: Path) -> None:
    rows = [{"id": n, "prompt": f"What is {n} + 1? " * (1 + 9 * (n == 1)), "answer": str(n + 1)} for n in range(4)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text("def brief(row):\n    return -len(row['completion']) / 100\n")
    words = ["grpo", "--model", str(tiny), *FLAGS.split(), "-o", "run", "problems.jsonl"]
    asked = r1(*words, "--max-prompt-length", "60", "--dry-run")
    assert asked.returncode == 0 and "1 prompts left out: longer than --max-prompt-length 60 tokens" in asked.stderr
    done = r1(*words, "--max-model-len", "68")
    assert done.returncode == 0, done.stderr
    assert "1 prompts left out: longer than what --max-model-len 68 leaves beside --max-completion-length: 60 tokens" in done.stderr
    assert json.loads((tmp_path / "run/manifest.json").read_text())["counts"]["prompts"] == 3
    assert {json.loads(line)["id"] for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()} <= {0, 2, 3}
    small = r1(*words, "--force", "--max-model-len", "12")
    assert_error(
        small,
        2,
        "no prompts to train on: 4 read, all longer than what --max-model-len 12",
        "raise --max-model-len: the shortest prompt has",
    )
