"""`r1 mix` on whole inputs: the same bytes whatever the order and the number of processes, near-duplicates, validation, strata, damage."""

import gzip
import itertools
import json
import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from r1cli.io import lines
from r1cli.io.stream import RowWriter, read_rows
from r1cli.row import parse
from tests.contract.conftest import Run, assert_error, command_line, environment

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
    "his",
    "but",
    "at",
    "are",
    "this",
    "have",
    "from",
    "or",
    "had",
    "an",
    "they",
    "which",
    "one",
    "you",
    "were",
]


def rows(name: str, count: int) -> list[str]:
    """Lines with everything that makes a mixture hard: repeats, near-repeats, missing ids, odd bytes, a shared benchmark question."""
    rng = random.Random(name)
    found = []
    for number in range(count):
        text = " ".join(rng.choices(WORDS, k=40))
        fields = {
            "id": f"{name}{number}",
            "prompt": f"Question {number % 7}? {text}",
            "completion": f"é\u2028 {text}",
            "kind": "ab"[number % 2],
        }
        if number % 10 == 3:
            del fields["id"]
        found.append(json.dumps(fields, ensure_ascii=number % 3 == 0, separators=(",", ":") if number % 2 else (", ", ": ")))
        if number % 8 == 5:
            found.append(found[-1])
        if number % 9 == 4:
            found.append(json.dumps({**fields, "id": f"near {name}{number}", "completion": f"é\u2028 {text} indeed"}))
    found[2] = json.dumps({"id": f"{name}!", "prompt": "so: what is the name of the first man who walked on it then"})
    return found


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write(tmp_path: Path, count: int = 60) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in rows(name, count)), "utf-8")
    (tmp_path / "bench.jsonl").write_text('{"prompt": "What is the name of the first man who walked on it?"}\n')


ALL = [
    "--decontaminate",
    "bench.jsonl",
    "--seed",
    "7",
    "--stratify",
    "kind",
    "--validation",
    "20%",
    "--validation-out",
    "v.jsonl",
    "--rejected",
    "r.jsonl",
    "--chars",
    "..5000",
    "--force",
]


@pytest.mark.parametrize(("out", "dedupe"), [("m.jsonl", "exact"), ("m.parquet", "exact"), ("m.jsonl", "minhash")])
def test_the_same_bytes_for_every_order_and_every_number_of_processes(r1: Run, tmp_path: Path, out: str, dedupe: str) -> None:
    if dedupe == "minhash":
        pytest.importorskip("rensa")
    write(tmp_path)
    lines_of_b = (tmp_path / "b.jsonl").read_text("utf-8").split("\n")[:-1]
    results = set()
    for number, inputs in enumerate(itertools.permutations(["a.jsonl:2x", "b.jsonl:50"])):
        for processes in ("1", "3"):
            done = r1("mix", *inputs, "--dedupe", dedupe, *ALL, "-o", out, "--num-processes", processes)
            assert done.returncode == 0, done.stderr
            results.add(tuple((tmp_path / name).read_bytes() for name in (out, "v.jsonl")))
        random.Random(number).shuffle(lines_of_b)
        (tmp_path / "b.jsonl").write_text("".join(f"{line}\n" for line in lines_of_b), "utf-8")
    assert len(results) == 1


def test_pieces_of_a_file_are_one_file(r1: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the pieces, every line is read once, and those that are too long for a piece too."""
    write(tmp_path)
    path = tmp_path / "a.jsonl"
    path.write_bytes(path.read_bytes() + b"\n \n" + b"x" * 5000 + b"\n" + b"last, without newline")
    whole = path.read_bytes().split(b"\n")
    for size in (1, 7, 100, 4096, 10**7):
        monkeypatch.setattr(lines, "PIECE", size)
        pieces = lines.Lines("a", str(path), path.stat().st_size).pieces()
        found = [pair for start, end in pieces for pair in lines.read_piece(str(path), start, end)]
        assert [line for _, line in found] == whole
        assert all(path.read_bytes()[offset : offset + len(line)] == line for offset, line in found)


def test_every_kind_of_input_and_output_gives_the_same_rows(r1: Run, tmp_path: Path) -> None:
    write(tmp_path, 20)
    text = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(text))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.jsonl").write_bytes(b"\xef\xbb\xbf" + text[: text.index(b"\n") + 1])
    (tmp_path / "folder" / "2.jsonl.gz").write_bytes(gzip.compress(text[text.index(b"\n") + 1 :]))
    done = [r1("mix", name, "--seed", "3") for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "folder")]
    done.append(r1("mix", "--seed", "3", stdin=text.decode("utf-8")))
    assert {(one.returncode, one.stdout) for one in done} == {(0, done[0].stdout)}
    for out in ("m.jsonl.gz", "m.jsonl.zst", "m.parquet"):
        assert r1("mix", "a.jsonl", "--seed", "3", "-o", out).returncode == 0
        assert [dict(row) for row in read_rows([str(tmp_path / out)])] == [dict(parse(line)) for line in done[0].stdout.split("\n")[:-1]]
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_parquet_in_parquet_out(r1: Run, tmp_path: Path) -> None:
    kinds: list[dict] = [
        {"id": 1, "n": 1, "messages": [{"role": "user", "content": "q"}]},
        {"id": 2, "n": 1.5, "late": None},
        {"id": 3, "late": [2**70]},
    ]
    with RowWriter(tmp_path / "a.parquet") as writer:
        writer.write_all(kinds)
    assert r1("mix", "a.parquet:4", "--max-repeat", "2", "-o", "m.parquet").returncode == 0
    found = [dict(row) for row in read_rows([str(tmp_path / "m.parquet")])]
    assert Counter(row["id"] for row in found).total() == 4
    assert all(row in kinds for row in found)


def test_near_duplicates_are_dropped_and_reported(r1: Run, tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    write(tmp_path)
    done = r1("mix", "a.jsonl", "--dedupe", "minhash", "--rejected", "r.jsonl", "-o", "m.jsonl")
    assert done.returncode == 0, done.stderr
    dropped = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert Counter(row["rejected_because"] for row in dropped) == {"duplicate": 7, "near-duplicate": 7}
    there = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").split("\n")[:-1]]
    for row in dropped:
        stays = there[int(row["repeats"].removeprefix("a.jsonl:")) - 1]
        assert stays["prompt"] == row["prompt"]
    strict = r1("mix", "a.jsonl", "--dedupe", "minhash", "--similarity", "1")
    assert "7 duplicate" in strict.stderr
    assert "near" not in strict.stderr


def test_overlaps_are_reported_with_the_row_in_a_file(r1: Run, tmp_path: Path) -> None:
    write(tmp_path)
    done = r1("mix", "a.jsonl", "b.jsonl", "--decontaminate", "bench.jsonl", "--rejected", "r.jsonl", "-o", "m.jsonl")
    assert done.returncode == 0, done.stderr
    dropped = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert [(row["id"], row["overlap"]["benchmark"]) for row in dropped] == [("a!", "bench.jsonl:1"), ("b!", "bench.jsonl:1")]
    assert dropped[0]["overlap"]["words"] == "what is the name of the first man who walked"


def test_validation_rows_share_no_prompt_with_the_others(r1: Run, tmp_path: Path) -> None:
    text = "".join(
        json.dumps({"id": f"{n}-{k}", "prompt": f"Question  {n}?" if k else f"question {n}?", "completion": str(k)}) + "\n"
        for n in range(40)
        for k in range(3)
    )
    (tmp_path / "a.jsonl").write_text(text)
    done = r1("mix", "a.jsonl:2x", "--validation", "10", "--validation-out", "v.jsonl", "-o", "m.jsonl")
    assert done.returncode == 0, done.stderr
    held, train = (
        [json.loads(line)["id"].split("-")[0] for line in (tmp_path / name).read_text().splitlines()] for name in ("v.jsonl", "m.jsonl")
    )
    assert (len(held), len(train)) == (9, 2 * 111)
    assert not set(held) & set(train)
    assert "222 out and 9 for validation" in done.stderr
    assert_error(r1("mix", "a.jsonl", "--validation", "10"), 2, "--validation and --validation-out belong together")
    assert_error(r1("mix", "a.jsonl", "--validation", "x%", "--validation-out", "w.jsonl"), 2, "neither a number of rows nor a share")
    assert_error(r1("mix", "a.jsonl", "--validation", "500", "--validation-out", "w.jsonl"), 1, "leave nothing to train on")


def test_strata_and_limits(r1: Run, tmp_path: Path) -> None:
    made = ({"id": n, "prompt": "x" * n, "kind": "ab"[n % 4 == 0]} for n in range(100))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    done = r1("mix", "a.jsonl:40%", "--stratify", "kind")
    assert Counter(json.loads(line)["kind"] for line in done.stdout.splitlines()) == {"a": 30, "b": 10}
    done = r1("mix", "a.jsonl", "--chars", "10..19")
    assert sorted(json.loads(line)["id"] for line in done.stdout.splitlines()) == list(range(10, 20))
    assert "dropped: 80 longer than 19 characters; 10 shorter than 10 characters" in done.stderr
    assert r1("mix", "a.jsonl", "--chars", "10..19", "--no-shuffle").stdout.count("\n") == 10


def test_bad_lines_are_named_by_their_place_in_the_input(r1: Run, tmp_path: Path) -> None:
    good = "".join(f'{{"id": {n}}}\n' for n in range(3))
    (tmp_path / "a.jsonl").write_text(good + '{"id": NaN}\n' + good.replace("id", "x") + '{"id": "to')
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(good + "\n{\n")
    assert_error(r1("mix", "a.jsonl"), 2, "a.jsonl:4: not valid JSON (NaN is not JSON)", "--skip-bad")
    assert_error(r1("mix", "b.jsonl.gz", "-o", "m.jsonl"), 2, "b.jsonl.gz:5: not valid JSON")
    done = r1("mix", "a.jsonl", "b.jsonl.gz", "--skip-bad", "-o", "m.jsonl", "--num-processes", "2")
    assert done.returncode == 0, done.stderr
    assert "left out 3 bad rows, the first: a.jsonl:4: not valid JSON" in done.stderr
    assert [source["bad"] for source in json.loads((tmp_path / "m.jsonl.manifest.json").read_text())["inputs"]] == [2, 1]
    (tmp_path / "c.jsonl").write_text(good + '{"id": [1]}\n')
    assert_error(r1("mix", "c.jsonl"), 2, "c.jsonl:4: row `[1]`: field `id` must be string or int or float")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_compressed_file_that_is_cut_off(r1: Run, tmp_path: Path, name: str) -> None:
    text = os.urandom(20_000).hex().encode()
    data = (gzip.compress if name.endswith("gz") else zstandard.compress)(b'{"id": "' + text + b'"}\n')
    (tmp_path / name).write_bytes(data[:-500])
    assert_error(r1("mix", name, "-o", "m.jsonl"), 2, f"{name}:1: cannot read on", "fetch or write it again")
    assert names(tmp_path) == [name]


def limited(tmp_path: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a shell in which no file may grow beyond 64 KiB: what a full disk looks like to it."""
    line = " ".join([*command_line(), *words])
    return subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 64; {line}"],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment(TMPDIR=str(tmp_path)),
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("out", ["m.jsonl", "m.jsonl.zst", "m.parquet"])
def test_a_disk_that_fills_up_leaves_nothing_under_the_name(tmp_path: Path, out: str) -> None:
    big = "".join(json.dumps({"id": n, "prompt": os.urandom(2000).hex()}) + "\n" for n in range(50))
    (tmp_path / "a.jsonl").write_text(big)
    done = limited(tmp_path, "mix", "a.jsonl", "-o", out)
    assert_error(done, 1, f"cannot write `{out}`: File too large", "--out")
    assert names(tmp_path) == ["a.jsonl"]


def test_a_full_temporary_folder_is_one_clear_error(tmp_path: Path) -> None:
    big = "".join(json.dumps({"id": n, "prompt": "x" * 4000}) + "\n" for n in range(50))
    assert_error(limited(tmp_path, "mix", stdin=big), 1, f"cannot write temporary files in `{tmp_path}`: File too large", "TMPDIR")
    assert_error(limited(tmp_path, "mix", "-o", "m.jsonl", stdin=big), 1, "cannot write temporary files in", "--out")
    assert names(tmp_path) == []


def test_unreadable_inputs(r1: Run, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + b"\0" * 100)
    assert_error(r1("mix", "a.parquet", "-o", "m.parquet"), 2, "a.parquet: not a readable Parquet file")
    with RowWriter(tmp_path / "b.parquet") as writer:
        writer.write_all({"id": n, "x": str(n) * 50} for n in range(3000))
    data = bytearray((tmp_path / "b.parquet").read_bytes())
    data[200:600] = b"\xff" * 400
    (tmp_path / "b.parquet").write_bytes(data)
    assert_error(r1("mix", "b.parquet", "-o", "m.parquet"), 2, "b.parquet: not a readable Parquet file")
    assert names(tmp_path) == ["a.parquet", "b.parquet"]


def test_a_reader_that_leaves_early(tmp_path: Path) -> None:
    write(tmp_path, 400)
    words = " ".join([*command_line(), "mix", "a.jsonl:20x", "--num-processes", "2"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} | head -1 | wc -l"],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_conflicting_outputs(r1: Run, tmp_path: Path) -> None:
    write(tmp_path, 5)
    assert_error(r1("mix", "a.jsonl", "-o", "m.jsonl", "--rejected", "m.jsonl"), 2, "two outputs have the same name")
    (tmp_path / "v.jsonl").write_text("mine")
    assert_error(r1("mix", "a.jsonl", "-o", "m.jsonl", "--validation", "1", "--validation-out", "v.jsonl"), 2, "`v.jsonl` exists")
