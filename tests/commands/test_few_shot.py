"""Worked examples of a file: what stands before each prompt."""

import json
from pathlib import Path

from r1cli.commands.few_shot import read_examples


def test_an_example_has_the_tag_that_its_prompt_had_opened(tmp_path: Path) -> None:
    whole = "<think>\na\n</think>\n\n2"
    rows = [
        {"id": "a", "prompt": "1 + 1?", "completion": "a\n</think>\n\n2", "think_prefix": "<think>\n"},
        {"id": "b", "prompt": "1 + 1?", "completion": whole},
        {
            "id": "c",
            "messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": whole}],
            "think_prefix": "<think>\n",
        },
    ]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [answer for _, answer in read_examples(str(tmp_path / "shots.jsonl"), None)] == [whole] * 3
