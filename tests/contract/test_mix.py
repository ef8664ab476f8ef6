"""`r1 mix` as a user meets it."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.contract.conftest import Run, assert_error


def write(path: Path, name: str, count: int) -> None:
    (path / f"{name}.jsonl").write_text("".join(f'{{"id": "{name}{n}",  "prompt": "{name} number {n}?"}}\n' for n in range(count)))


def ids(text: str) -> list[str]:
    return [json.loads(line)["id"] for line in text.split("\n")[:-1]]


def test_counts_and_weights(r1: Run, tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, name, 40)
    done = r1("mix", "a.jsonl:5", "b.jsonl=0.75", "c.jsonl=0.25", "--total", "25")
    assert done.returncode == 0, done.stderr
    got = ids(done.stdout)
    assert {name: sum(i.startswith(name) for i in got) for name in "abc"} == {"a": 5, "b": 15, "c": 5}
    assert len(set(got)) == 25
    assert done.stderr.split("\n")[:2] == ["mix: 120 rows in, 25 out, 0 dropped, 95 not drawn", "of each: a.jsonl 5, b.jsonl 15, c.jsonl 5"]


def test_the_seed_decides_the_bytes_and_the_order_of_the_inputs_does_not(r1: Run, tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path, name, 30)
    one = r1("mix", "a.jsonl", "b.jsonl:10", "--seed", "7").stdout
    lines = (tmp_path / "a.jsonl").read_text().split("\n")[:-1]
    (tmp_path / "a.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    assert r1("mix", "b.jsonl:10", "a.jsonl", "--seed", "7").stdout == one
    assert r1("mix", "a.jsonl", "b.jsonl:10", "--seed", "8").stdout != one
    assert sorted(ids(one))[:30] == sorted(json.loads(line)["id"] for line in lines)
    assert '",  "prompt"' in one  # rows are the bytes they were


def test_without_a_shuffle_rows_keep_their_order(r1: Run, tmp_path: Path) -> None:
    write(tmp_path, "a", 3)
    text = (tmp_path / "a.jsonl").read_text()
    assert r1("mix", "--no-shuffle", "a.jsonl", "-", stdin='{"id": 1}\n').stdout == text + '{"id": 1}\n'


def test_duplicates_and_overlaps_are_dropped_before_counting(r1: Run, tmp_path: Path) -> None:
    write(tmp_path, "a", 10)
    (tmp_path / "more.jsonl").write_text('{"id": "x", "prompt": "a number 3?"}\n{"id": "y", "prompt": "one two three four five"}\n')
    (tmp_path / "bench.jsonl").write_text('{"id": "q", "prompt": "zero ONE two, three"}\n{"id": "r", "prompt": "a number 4?"}\n')
    done = r1("mix", "a.jsonl", "more.jsonl", "--dedupe", "exact", "--decontaminate", "bench.jsonl", "--ngram", "3", "-o", "m.jsonl")
    assert done.returncode == 0, done.stderr
    assert sorted(ids((tmp_path / "m.jsonl").read_text())) == [f"a{n}" for n in range(10) if n != 4]
    made = json.loads((tmp_path / "m.jsonl.manifest.json").read_text())
    assert made["counts"]["dropped"] == {"duplicate": 1, "shares 3 words in a row with a benchmark": 2}
    assert made["overlaps"] == [
        {"row_id": "a4", "row": "a.jsonl:5", "benchmark": "bench.jsonl:2", "words": "a number 4"},
        {"row_id": "y", "row": "more.jsonl:2", "benchmark": "bench.jsonl:1", "words": "one two three"},
    ]
    assert made["inputs"][0] == {
        "name": "a.jsonl",
        "rows": 10,
        "bad": 0,
        "bytes": (tmp_path / "a.jsonl").stat().st_size,
        "sha256": hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest(),
    }


def test_a_template_that_looks_like_a_leak_is_pointed_out(r1: Run, tmp_path: Path) -> None:
    template = "please reason step by step and put your final answer within boxed"
    (tmp_path / "a.jsonl").write_text("".join(f'{{"id": {n}, "prompt": "{n} {template}"}}\n' for n in range(5)))
    (tmp_path / "b.jsonl").write_text(f'{{"id": 9, "prompt": "99 {template}"}}\n')
    done = r1("mix", "a.jsonl", "--decontaminate", "b.jsonl")
    assert ids(done.stdout) == []
    assert "warning: 5 of 5 overlaps are the same words, perhaps a prompt template: please reason step by step" in done.stderr


@pytest.mark.parametrize(("words", "rows"), [(("-=3", "a.jsonl=1"), 4), (("-:2x",), 6), (("-:2",), 2), (("/dev/stdin=1", "a.jsonl=3"), 4)])
def test_stdin_has_the_forms_of_a_file(r1: Run, tmp_path: Path, words: tuple[str, ...], rows: int) -> None:
    write(tmp_path, "a", 3)
    done = r1("mix", *words, stdin="".join(f'{{"id": {n}, "prompt": "{n}?"}}\n' for n in range(3)))
    assert done.returncode == 0, done.stderr
    assert len(ids(done.stdout)) == rows
    assert "of each: - " in done.stderr


def test_wrong_asks(r1: Run, tmp_path: Path) -> None:
    write(tmp_path, "a", 3)
    (tmp_path / "q.jsonl").write_text('{"question": "x"}\n')
    assert_error(r1("mix", "a.jsonl:4"), 2, "`a.jsonl` has 3 rows to give, 4 are asked for")
    assert_error(r1("mix", "a.jsonl=x"), 2, "`a.jsonl=x`: the weight must be a number")
    assert_error(r1("mix", "a.jsonl", "--total", "2"), 2, "`--total` needs weights", "FILE=WEIGHT")
    assert_error(r1("mix", "a.jsonl=0"), 2, "all weights are 0")
    assert_error(
        r1("mix", "a.jsonl=3", "q.jsonl"), 2, "`a.jsonl=3` is the only weight", "weigh the others too: a.jsonl=3 q.jsonl=1; or a.jsonl:3x"
    )
    assert_error(r1("mix", "a.jsonl=0.5"), 2, "`a.jsonl=0.5` is the only weight", "a.jsonl:0.5x repeats its rows")
    assert_error(r1("mix", "a.jsonl", "--similarity", "0.9"), 2, "--similarity does nothing: it belongs to --dedupe minhash")
    assert_error(r1("mix", "-", "-"), 2, "stdin (`-`) is named twice")
    assert_error(r1("mix", "-", "-:2x"), 2, "stdin (`-`) is named twice")
    assert_error(r1("mix", "a.jsonl", "-x"), 2, "has no flag `-x`")
    assert_error(r1("mix", "b.jsonl:2"), 2, "no such file: `b.jsonl`")
    assert_error(r1("mix", "a.jsonl", "--decontaminate", "q.jsonl"), 2, "q.jsonl:1: a row of --decontaminate has no `prompt`", "jq")
