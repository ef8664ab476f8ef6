"""`r1 lineage` as a user meets it: from a file back to the raw data."""

import json
from pathlib import Path

from tests.contract.conftest import Run, assert_error

ROW = '{{"id": "{0}", "prompt": "{0}?", "answer": "2", "completion": "\\\\boxed{{2}}"}}\n'


def made(r1: Run, tmp_path: Path) -> None:
    """raw.jsonl -> kept.jsonl (and dropped.jsonl) -> mixed.parquet, checked against bench.jsonl."""
    (tmp_path / "raw.jsonl").write_text("".join(ROW.format(n) for n in range(5)) + ROW.format("x").replace('"2"', '"3"'))
    (tmp_path / "bench.jsonl").write_text('{"id": "b", "prompt": "what is asked here"}\n')
    done = r1("reject", "raw.jsonl", "--rewards", "accuracy", "-o", "kept.jsonl", "--rejected", "dropped.jsonl", "--reward-workers", "1")
    assert done.returncode == 0, done.stderr
    done = r1("mix", "kept.jsonl:3", "--decontaminate", "bench.jsonl", "-o", "out/mixed.parquet")
    assert done.returncode == 0, done.stderr


def test_a_file_is_told_back_to_the_raw_data(r1: Run, tmp_path: Path) -> None:
    made(r1, tmp_path)
    done = r1("lineage", "out/mixed.parquet")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("out/mixed.parquet  sha256 ")
    assert "made by r1 mix" in lines[0]
    assert lines[1] == "│  r1 mix kept.jsonl:3 --decontaminate bench.jsonl -o out/mixed.parquet"
    assert lines[2].startswith("├─ kept.jsonl  5 rows, sha256 ")
    assert "made by r1 reject" in lines[2]
    assert "6 in, 5 out" in lines[2]
    assert lines[3].startswith("│  │  r1 reject raw.jsonl")
    assert lines[4].startswith("│  └─ raw.jsonl  6 rows, sha256 ")
    assert lines[4].endswith(", raw")
    assert lines[5].startswith("└─ bench.jsonl  decontaminate, 1 rows, ")
    assert len(lines) == 6


def test_every_output_has_its_manifest(r1: Run, tmp_path: Path) -> None:
    made(r1, tmp_path)
    tree = json.loads(r1("lineage", "--json", "dropped.jsonl").stdout)
    assert (tree["state"], tree["made"]["command"]) == ("same", "reject")
    assert [(source["name"], source["state"], source["made"]) for source in tree["sources"]] == [("raw.jsonl", "same", None)]
    assert tree["made"]["settings"]["rejected"] == "dropped.jsonl"
    assert tree["made"]["counts"] == {"in": 6, "out": 5, "dropped": {"accuracy below 1": 1}, "bad": 0}


def test_scores_have_a_history_too(r1: Run, tmp_path: Path) -> None:
    made(r1, tmp_path)
    done = r1("eval", "kept.jsonl", "-o", "scores.json", "--rows", "scored.jsonl", "--reward-workers", "1")
    assert done.returncode == 0, done.stderr
    for name in ("scores.json", "scored.jsonl"):
        tree = json.loads(r1("lineage", "--json", name).stdout)
        assert (tree["made"]["command"], tree["sources"][0]["name"], tree["sources"][0]["sources"][0]["name"]) == (
            "eval",
            "kept.jsonl",
            "raw.jsonl",
        )


def test_what_is_gone_or_has_changed_is_said(r1: Run, tmp_path: Path) -> None:
    made(r1, tmp_path)
    assert r1("lineage", "--check", "out/mixed.parquet").returncode == 0
    (tmp_path / "raw.jsonl").unlink()
    (tmp_path / "kept.jsonl").write_text(ROW.format("other"))
    kept, bench = json.loads(r1("lineage", "--json", "out/mixed.parquet").stdout)["sources"]
    assert (kept["name"], kept["state"], bench["name"], bench["state"]) == ("kept.jsonl", "changed", "bench.jsonl", "same")
    assert [(source["name"], source["state"]) for source in kept["sources"]] == [("raw.jsonl", "gone")]
    (tmp_path / "kept.jsonl").unlink()
    kept, _ = json.loads(r1("lineage", "--json", "out/mixed.parquet").stdout)["sources"]
    assert (kept["state"], kept["sources"][0]["name"]) == ("gone", "raw.jsonl"), "its manifest is still there"
    (tmp_path / "other.jsonl").write_text(ROW.format("other"))
    assert r1("mix", "other.jsonl", "-o", "kept.jsonl", "--force").returncode == 0
    kept, _ = json.loads(r1("lineage", "--json", "out/mixed.parquet").stdout)["sources"]
    assert (kept["state"], kept["sources"]) == ("changed", []), "the history of another file is not told"
    done = r1("lineage", "--check", "out/mixed.parquet")
    assert done.returncode == 1
    assert "├─ kept.jsonl  5 rows, " in done.stdout
    assert "CHANGED since" in done.stdout
    assert "error: 1 of the files are gone or have changed since: `kept.jsonl`" in done.stderr
    assert "GONE" in r1("lineage", "dropped.jsonl").stdout


def test_a_file_that_was_written_over_itself(r1: Run, tmp_path: Path) -> None:
    made(r1, tmp_path)
    done = r1("mix", "kept.jsonl", "-o", "kept.jsonl", "--validation", "2", "--validation-out", "v.jsonl", "--force")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line)["id"] for name in ("kept.jsonl", "v.jsonl") for line in (tmp_path / name).read_text().splitlines()]
    assert sorted(rows) == list("01234")
    tree = json.loads(r1("lineage", "--json", "kept.jsonl").stdout)
    assert [(source["name"], source["state"], source["sources"]) for source in tree["sources"]] == [("kept.jsonl", "unknown", [])]


def test_it_works_from_another_folder(r1: Run, tmp_path: Path) -> None:
    made(r1, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mixed.parquet").write_bytes((tmp_path / "out" / "mixed.parquet").read_bytes())
    (tmp_path / "elsewhere" / "mixed.parquet.manifest.json").write_bytes((tmp_path / "out" / "mixed.parquet.manifest.json").read_bytes())
    tree = json.loads(r1("lineage", "--json", "elsewhere/mixed.parquet").stdout)
    assert tree["sources"][0]["sources"][0]["name"] == "raw.jsonl"


def test_a_model_is_told_by_its_run(r1: Run, tmp_path: Path) -> None:
    made(r1, tmp_path)
    run = tmp_path / "run"
    (run / "checkpoints" / "step_000002").mkdir(parents=True)
    (run / "config.json").write_text(
        json.dumps(
            {
                "command": "sft",
                "command_line": ["x", "sft", "-m", "base", "-o", "run", "kept.jsonl"],
                "directory": str(tmp_path),
                "settings": {"model": "base", "inputs": ["kept.jsonl"]},
                "sources": {"model": "flag"},
                "versions": {},
            }
        )
    )
    (run / "checkpoints" / "step_000002" / "manifest.json").write_text(json.dumps({"command": "checkpoint", "step": 2, "inputs": []}))
    tree = json.loads(r1("lineage", "--json", "run/checkpoints/step_000002").stdout)
    assert (tree["made"]["command"], tree["made"]["step"]) == ("sft", 2)
    assert [(source["name"], source["role"]) for source in tree["sources"]] == [("kept.jsonl", "rows"), ("base", "model")]
    assert "run  made by r1 sft, not finished\n" in r1("lineage", "run").stdout


def test_wrong_asks(r1: Run, tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_text(ROW.format(1))
    assert r1("lineage", "raw.jsonl").stdout.endswith(", no manifest\n")
    assert_error(r1("lineage", "rwa.jsonl"), 2, "no such file: `rwa.jsonl`", "did you mean `raw.jsonl`?")
    assert_error(r1("lineage"), 2, "no file to tell about")
    (tmp_path / "raw.jsonl.manifest.json").write_text("{")
    assert_error(r1("lineage", "raw.jsonl"), 2, "`raw.jsonl.manifest.json` cannot be read")
