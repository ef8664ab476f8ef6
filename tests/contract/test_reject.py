"""`r1 reject` as a user meets it."""

import json
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.contract.conftest import Run, assert_error, command_line, environment
from tests.fake_server import FakeServer, send


def rows(*answers: tuple[str, int, str, str]) -> str:
    made = [
        {"id": i, "prompt": f"{i}?", "answer": answer, "source": "s", "sample": k, "completion": text, "num_tokens": len(text)}
        for i, k, answer, text in answers
    ]
    return "".join(json.dumps(row) + "\n" for row in made)


RIGHT, WRONG, BARE = "<think>so</think> \\boxed{4}", "<think>so</think> \\boxed{5}", "\\boxed{4}"
TEXT = rows(("a", 0, "4", RIGHT), ("a", 1, "4", WRONG), ("b", 0, "4", BARE), ("a", 2, "4", RIGHT + " "), ("c", 0, "4", RIGHT))


def read(text: str) -> list[dict]:
    return [json.loads(line) for line in text.split("\n")[:-1]]


def pairs(text: str) -> list[tuple[str, int]]:
    return [(row["id"], row["sample"]) for row in read(text)]


def test_rows_are_scored_and_the_passing_ones_stay(r1: Run, tmp_path: Path) -> None:
    done = r1("reject", "--rewards", "accuracy,format=0.5", "--rejected", "bad.jsonl", stdin=TEXT)
    assert done.returncode == 0, done.stderr
    kept = read(done.stdout)
    assert pairs(done.stdout) == [("a", 0), ("a", 2), ("c", 0)]
    assert kept[0] == {**read(TEXT)[0], "rewards": {"accuracy": 1.0, "format": 1.0}, "reward": 1.5}
    bad = read((tmp_path / "bad.jsonl").read_text())
    assert [(row["id"], row["sample"], row["reward"], row["rejected_because"]) for row in bad] == [
        ("a", 1, 0.5, "accuracy below 1"),
        ("b", 0, 1.0, "format below 1"),
    ]
    assert done.stderr.split("\n")[:2] == [
        "reject: 5 rows in, 3 kept, 2 dropped; mean accuracy 0.800, format 0.800",
        "dropped: 1 accuracy below 1; 1 format below 1",
    ]
    assert len(done.stderr.split("\n")) <= 7


def test_conditions_and_what_is_wrong_with_them(r1: Run) -> None:
    assert pairs(r1("reject", "--keep", "accuracy == 0 or num_tokens < 12", stdin=TEXT).stdout) == [("a", 1), ("b", 0)]
    wrong = r1("reject", "--keep", "accuracy = 1", stdin=TEXT)
    assert_error(wrong, 2, "condition, column 10: `=` is not part of a condition", "write `==`")
    wrong = r1("reject", "--keep", "acuracy == 1", stdin=TEXT)
    assert_error(wrong, 2, "stdin:1: row `a` has nothing named `acuracy`", "did you mean `accuracy`?")


def test_picking_by_length_and_by_seed(r1: Run) -> None:
    assert pairs(r1("reject", "--per-prompt", "1", "--pick", "shortest", stdin=TEXT).stdout) == [("a", 0), ("c", 0)]
    assert pairs(r1("reject", "--per-prompt", "1", "--pick", "longest", stdin=TEXT).stdout) == [("a", 2), ("c", 0)]
    runs = [r1("reject", "--keep", "all", "--per-prompt", "1", "--seed", str(seed), stdin=TEXT).stdout for seed in (0, 0, 1, 2, 3)]
    assert runs[0] == runs[1]
    assert len(set(runs)) > 1


def test_sft_rows(r1: Run) -> None:
    text = TEXT.replace('"completion": "<think>', '"think_prefix": "<think>\\n", "completion": "')
    done = r1("reject", "--to", "sft", "--rewards", "accuracy", "-n", "1", stdin=text)
    messages = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "<think>\nso</think> \\boxed{4}"}]
    assert read(done.stdout) == [{"id": "a", "messages": messages, "answer": "4", "source": "s", "sample": 0}]


def test_old_scores_are_replaced(r1: Run) -> None:
    scored = TEXT.replace('"num_tokens"', '"rewards": {"accuracy": 1.0, "old": 3.0}, "reward": 9.0, "num_tokens"')
    assert pairs(r1("reject", stdin=scored).stdout) == [("a", 0), ("a", 2), ("c", 0)]
    assert read(r1("reject", stdin=scored).stdout)[0]["rewards"] == {"accuracy": 1.0, "format": 1.0}


def test_rows_that_cannot_be_scored(r1: Run) -> None:
    for missing in ("completion", "answer"):
        lines = TEXT.split("\n")
        lines[2] = lines[2].replace(f'"{missing}"', '"other"')
        text = "\n".join(lines)
        done = r1("reject", stdin=text)
        assert done.returncode == 2
        assert f"error: stdin:3: row `b` has no field `{missing}`" in done.stderr
        assert f"--map {missing}=" in done.stderr
        assert pairs(done.stdout) == [("a", 0)]
        done = r1("reject", "--skip-bad", stdin=text)
        assert pairs(done.stdout) == [("a", 0), ("a", 2), ("c", 0)]
        assert "left out 1 bad rows, the first: stdin:3: row `b`" in done.stderr


def test_wrong_settings_are_said_before_any_row_is_read(r1: Run) -> None:
    assert_error(r1("reject", "--rewards", "acuracy", stdin="broken"), 2, "unknown reward `acuracy`", "did you mean `accuracy`?")
    assert_error(r1("reject", "-o", "a.jsonl", "--rejected", "a.jsonl", stdin="broken"), 2, "--out and --rejected name the same file")


def test_nothing_kept_is_no_failure_and_said(r1: Run) -> None:
    done = r1("reject", "--keep", "accuracy > 1", stdin=TEXT)
    assert (done.returncode, done.stdout) == (0, "")
    assert "warning: no row was kept" in done.stderr


def test_a_manifest_tells_what_made_the_file(r1: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(TEXT)
    done = r1("reject", "in.jsonl", "-o", "kept.jsonl", "--to", "sft")
    assert done.returncode == 0, done.stderr
    assert "r1 sft" in done.stderr
    made = json.loads((tmp_path / "kept.jsonl.manifest.json").read_text())
    assert made["command"] == "reject"
    assert made["inputs"][0]["rows"] == 5
    assert made["counts"] == {"in": 5, "out": 3, "dropped": {"accuracy below 1": 1, "format below 1": 1}, "bad": 0}
    assert made["settings"]["to"] == "sft"
    assert len(made["outputs"][0]["sha256"]) == 64


def test_the_preset_of_stage_3_drops_what_the_paper_found_hard_to_read(r1: Run) -> None:
    readings = {
        "fine": "Two and two make four, which is easy to see.",
        "long": "two and two make four and so " * 40,
        "code": "I let it be computed.\n```python\nprint(2 + 2)\n```\nThat prints four.",
    }
    made = rows(*((name, 0, "4", f"<think>{text}</think> The sum is \\boxed{{4}}.") for name, text in readings.items()))
    done = r1("reject", "--preset", "r1-rejection-sft", stdin=made)
    assert pairs(done.stdout) == [("fine", 0)], done.stderr
    assert done.stderr.split("\n")[1] == "dropped: 1 a paragraph of more than 200 words; 1 a code block in the reasoning"
    unfiltered = r1("reject", "--preset", "r1-rejection-sft", "--filters", "", stdin=made)
    assert pairs(unfiltered.stdout) == [("fine", 0), ("long", 0), ("code", 0)]


def test_filters_give_their_reasons(r1: Run, tmp_path: Path) -> None:
    text = TEXT.replace("so</think>", "so\\n```\\nx\\n```\\n</think>", 1)
    done = r1("reject", "--rewards", "accuracy", "--filters", "readable", "--rejected", "bad.jsonl", stdin=text)
    assert pairs(done.stdout) == [("b", 0), ("a", 2), ("c", 0)]
    assert [row["rejected_because"] for row in read((tmp_path / "bad.jsonl").read_text())] == [
        "a code block in the reasoning",
        "accuracy below 1",
    ]
    assert "warning: 5 rows have no `finish_reason`: whether they were truncated is not known" in done.stderr
    assert_error(r1("reject", "--filters", "readible", stdin="broken"), 2, "unknown filter `readible`", "did you mean `readable`?")


def test_the_difficulty_window(r1: Run) -> None:
    done = r1("reject", "--rewards", "accuracy", "--pass-rate", "0.1..0.9", stdin=TEXT)
    assert pairs(done.stdout) == [("a", 0), ("a", 2)]
    assert "dropped: 2 pass rate above 0.9; 1 accuracy below 1" in done.stderr
    assert_error(r1("reject", "--pass-rate", "0.9..0.1", stdin="broken"), 2, "is not a range of shares", "--pass-rate 0.1..0.9")


def test_preference_pairs(r1: Run, tmp_path: Path) -> None:
    done = r1("reject", "--rewards", "accuracy", "--pairs", "--rejected", "bad.jsonl", "-o", "pairs.jsonl", stdin=TEXT)
    [pair] = read((tmp_path / "pairs.jsonl").read_text())
    assert (pair["prompt"], pair["chosen"].strip(), pair["rejected"], pair["margin"]) == ("a?", RIGHT, WRONG, 1.0)
    assert [row["id"] for row in read((tmp_path / "bad.jsonl").read_text())] == ["a", "b", "c"]
    assert done.stderr.startswith("reject: 5 rows in, 1 pairs, 3 dropped")
    for words in (["--to", "sft"], ["--pass-rate", "0.."], ["--pick", "diverse"]):
        assert_error(r1("reject", "--pairs", *words, stdin="broken"), 2, "does not go with --pairs")


def test_what_moved_since_a_file_was_scored(r1: Run, tmp_path: Path) -> None:
    first = r1("reject", "--rewards", "accuracy", "--keep", "all", "-o", "old.jsonl", stdin=TEXT)
    assert first.returncode == 0, first.stderr
    (tmp_path / "half.py").write_text("def accuracy(row):\n    return float('4' in row['completion'] and 'think' in row['completion'])\n")
    words = ["reject", "--rewards", "half.py:accuracy", "--keep", "accuracy == 1", "--compare", "old.jsonl"]
    done = r1(*words, "--moved", "moved.jsonl", "old.jsonl")
    assert done.returncode == 0, done.stderr
    assert pairs(done.stdout) == [("a", 0), ("a", 2), ("c", 0)]
    assert done.stderr.splitlines()[1:4] == [
        "compared: 1 of 5 rows moved; 0 now kept, 1 now dropped",
        "moves: accuracy 1 to 0: 1",
        "for example `b`/0: accuracy 1 to 0, now dropped",
    ]
    [moved] = read((tmp_path / "moved.jsonl").read_text())
    assert moved["moved"] == {"rewards": {"accuracy": [1.0, 0.0]}, "kept": [True, False]}
    from_file = r1(*words, stdin=TEXT)
    assert from_file.stdout == done.stdout
    assert from_file.stderr.splitlines()[1:4] == done.stderr.splitlines()[1:4]


def test_flags_that_do_nothing_are_refused(r1: Run) -> None:
    for words, message in (
        (["--moved", "m.jsonl"], "--moved does nothing without --compare"),
        (["--balance-lengths"], "--balance-lengths does nothing without --pairs"),
        (["--judge-when", "reward > 1"], "--judge-when does nothing without --judge"),
        (["--judge", "m", "--pairs", "--judge-when", "reward > 1"], "--judge-when chooses rows to grade"),
        (["--compare", "x.jsonl", "--moved", "m.jsonl", "-o", "m.jsonl"], "--out and --moved name the same file"),
        (["--rejected", "-"], "--out and --rejected are both stdout"),  # `| r1 sft` would learn the wrong answers
        (["--rejected", "/dev/stdout"], "--out and --rejected are both stdout"),
        (["--compare", "x.jsonl", "--moved", "-", "--rejected", "-", "-o", "m.jsonl"], "--rejected and --moved are both stdout"),
        (["--pick", "best"], "--pick does nothing: every row of a prompt stays"),
        (["--url", "http://127.0.0.1:1"], "--url does nothing: no model is sampled here"),
    ):
        assert_error(r1("reject", *words, stdin="broken"), 2, message)


def test_dropped_rows_may_have_stdout_for_themselves(r1: Run, tmp_path: Path) -> None:
    done = r1("reject", "--rejected", "-", "-o", "kept.jsonl", stdin=TEXT)
    assert done.returncode == 0, done.stderr
    dropped = read(done.stdout)
    assert dropped and all("rejected_because" in row for row in dropped)
    assert not any("rejected_because" in row for row in read((tmp_path / "kept.jsonl").read_text()))


def test_a_judge_that_babbles_lets_nothing_pass_and_is_counted(r1: Run, tiny: Path, tmp_path: Path) -> None:
    """The tiny model has random weights: its replies hold no verdict. What matters is that none of them counts as one."""
    text = TEXT.replace('"answer": "4", "source": "s", "sample": 0', '"answer": null, "reference": "four", "source": "s", "sample": 0')
    words = ["--judge", str(tiny), "--engine", "transformers", "--judge-length", "4"]
    done = r1("reject", *words, "--rejected", "bad.jsonl", stdin=text)
    assert done.returncode == 0, done.stderr
    assert pairs(done.stdout) == [("a", 2)]
    assert read(done.stdout)[0]["rewards"] == {"accuracy": 1.0, "format": 1.0, "judge": None}
    assert "judge: 3 rows graded, 3 verdicts could not be read" in done.stderr
    bad = read((tmp_path / "bad.jsonl").read_text())
    assert [row["rejected_because"] for row in bad].count("the judge's verdict could not be read") == 3
    assert all(row["rewards"]["judge"] is None and isinstance(row["judge_reply"], str) for row in bad if row["answer"] is None)


def test_rows_stream_through_filters_and_comparison(tmp_path: Path) -> None:
    """Row 1 comes out before row 2 goes in."""
    words = ["reject", "--rewards", "accuracy", "--filters", "code-block,repetition", "--compare", "input"]
    with subprocess.Popen(
        [*command_line(), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for n, line in enumerate(line for line in TEXT.splitlines(keepends=True) if RIGHT in json.loads(line)["completion"]):
            process.stdin.write(line)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["sample"] == [0, 2, 0][n]
        process.stdin.close()
        assert process.wait() == 0


def says(text: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """A chat model that always says the same."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return lambda handler: send(handler, 200, {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 5}})


def test_a_judge_behind_an_address(r1: Run) -> None:
    text = TEXT.replace('"answer": "4", "source": "s", "sample": 0', '"answer": null, "reference": "four", "source": "s", "sample": 0')
    with FakeServer(always=says("It is.\nVERDICT: CORRECT")) as server:
        done = r1("reject", "--rewards", "accuracy", "--judge", server.url, stdin=text)
        assert done.returncode == 0, done.stderr
        named = r1("reject", "--rewards", "accuracy", "--judge", "teacher", "--url", server.url, stdin=text)
        asked = [body["messages"][0]["content"] for _, body, _ in server.requests]
        assert_error(r1("reject", "--judge", server.url, "--url", server.url, stdin="broken"), 2, "is the address of a server, and --url")
    assert pairs(done.stdout) == [("a", 0), ("b", 0), ("a", 2), ("c", 0)]
    assert [row["rewards"]["judge"] for row in read(done.stdout)] == [1.0, 1.0, None, 1.0]
    assert named.stdout == done.stdout
    assert len(asked) == 6
    for question in ("a?", "b?", "c?"):
        assert sum(f"\n{question}\n" in text and "\nfour\n" in text and "\\boxed{4}" in text for text in asked) == 2
    assert "judge: 3 rows graded, 0 verdicts could not be read" in done.stderr


def test_a_judge_that_always_prefers_the_first_place_makes_no_pair(r1: Run, tmp_path: Path) -> None:
    with FakeServer(always=says("[[A>>B]]")) as server:
        words = ["--rewards", "accuracy", "--keep", "all", "--pairs", "--judge", server.url, "--rejected", "bad.jsonl"]
        done = r1("reject", *words, stdin=TEXT)
        assert len(server.requests) == 4
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    reasons = [row["rejected_because"] for row in read((tmp_path / "bad.jsonl").read_text())]
    assert reasons.count("not in a pair: a mean margin of 1 or less") == 2 and len(reasons) == 5
    assert "judge: 1 pairs compared, 0 verdicts could not be read" in done.stderr


def test_what_the_judges_server_refuses_is_unreadable(r1: Run) -> None:
    text = TEXT.replace('"answer": "4"', '"answer": null')
    with FakeServer(refuse="VERDICT") as server:
        done = r1("reject", "--rewards", "accuracy", "--judge", server.url, stdin=text)
    assert (done.returncode, done.stdout) == (0, "")
    assert "dropped: 5 the judge's verdict could not be read" in done.stderr


def test_a_full_temporary_folder_is_said_and_leaves_no_half_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); "
    limited += "from r1cli.cli import main; sys.exit(main())"
    line = TEXT.splitlines()[0].replace("so<", "so " * 2000 + "<")
    words = [sys.executable, "-c", limited, "reject", "--rewards", "format", "--per-prompt", "1", "-o", "out.jsonl"]
    done = subprocess.run(words, input=f"{line}\n" * 40, capture_output=True, text=True, cwd=tmp_path, env=environment(), check=False)
    assert_error(done, 1, "the temporary folder", "TMPDIR=")
    assert list(tmp_path.iterdir()) == []
