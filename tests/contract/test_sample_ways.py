"""The ways to prompt and to draw: few-shot, rewriting, log-probabilities, --until, and servers, all through the real command."""

import json

import pytest

from r1cli.row import seed_of
from tests import fake_server as fault
from tests.contract.conftest import assert_error
from tests.contract.test_sample import FAST, LINES, by_pair, rows_of
from tests.fake_server import FakeServer

REWARD = '''
def even(row):
    """1 when the seed is even: half of the completions, whatever the model writes."""
    return float(row["seed"] % 2 == 0)

def never(row):
    return 0.0
'''


def even_seeds(row_id: str, count: int) -> list[int]:
    return [sample for sample in range(count) if seed_of(0, row_id, sample) % 2 == 0]


def expected_rounds(row_id: str, enough: int, step: int, most: int) -> int:
    """Samples drawn of a prompt: rounds of `step` until `enough` seeds are even."""
    drawn = 0
    while drawn < most and len(even_seeds(row_id, drawn)) < enough:
        drawn = min(drawn + step, most)
    return drawn


def test_until_draws_more_only_where_it_is_needed_and_resumes_to_the_same(r1, tiny, tmp_path):
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "in.jsonl").write_text(LINES)
    words = ("sample", "--model", str(tiny), *FAST, "-k", "2", "--until", "even == 1=2", "--max", "9", "--rewards", "mine.py:even",
             "-o", "out.jsonl", "--resume", "in.jsonl")  # fmt: skip
    done = r1(*words)
    assert done.returncode == 0, done.stderr
    rows = rows_of((tmp_path / "out.jsonl").read_text())
    wanted = {f"p{n}": expected_rounds(f"p{n}", 2, 2, 9) for n in range(3)}
    assert len(set(wanted.values())) > 1, "the prompts of this test need different numbers"
    assert {row_id: sum(row["id"] == row_id for row in rows) for row_id in wanted} == wanted
    assert sorted(by_pair(rows)) == [(row_id, sample) for row_id, count in wanted.items() for sample in range(count)]
    assert all(row["rewards"] == {"even": float(row["seed"] % 2 == 0)} for row in rows)
    assert "even == 1=2: 3 prompts reached it, 0 did not" in done.stderr
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[::2]) + '{"id": "p0", "sam')
    again = r1(*words)
    assert again.returncode == 0, again.stderr
    assert by_pair(rows_of((tmp_path / "out.jsonl").read_text())) == by_pair(rows)


def test_until_gives_up_at_the_most_and_passes_over_what_cannot_be_drawn(r1, tiny, tmp_path):
    (tmp_path / "mine.py").write_text(REWARD)
    lines = LINES + json.dumps({"id": "long", "prompt": "x " * 2000}) + "\n"
    done = r1("sample", "--model", str(tiny), *FAST, "-k", "2", "--until", "never > 0=1", "--max", "3", "--rewards", "mine.py:never",
              stdin=lines)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(rows_of(done.stdout)) == 9
    assert "never > 0=1: 0 prompts reached it, 4 did not" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--until", "correct"], "is not a name and a number"),
        (["--until", "wrong=4"], "there is no reward `wrong`"),
        (["--until", "correct=9", "--max", "8"], "can never be reached"),
        (["--max", "8"], "--max without --until"),
        (["--until", "correct=4", "--temperature", "0"], "the same completion again"),
        (["--shard", "0/4"], "is not a part of a whole"),
        (["--shard", "5/4"], "is not a part of a whole"),
        (["--shots", "2"], "--shots without --few-shot"),
        (["--few-shot", "none.jsonl"], "no such file"),
        (["--template", "rewrite", "-k", "2"], "one row of each completion"),
        (["--template", "rewrite"], "has no field `completion`"),
        (["--engine", "server"], "needs the address"),
        (["--url", "http://127.0.0.1:1"], "draws in this process"),
        (["--api-key-env", "KEY"], "without --url"),
    ],
)
def test_mistakes_are_said_before_anything_is_drawn(r1, tiny, words, message):
    engine = () if words[0] == "--engine" else FAST[:2]
    done = r1("sample", "--model", str(tiny), *engine, *FAST[2:], *words, stdin=LINES)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], done.stderr
    assert done.stdout == ""


def test_logprobs_and_tokens_are_in_the_row_when_asked_for(r1, tiny):
    done = r1("sample", "--model", str(tiny), *FAST, "--logprobs", stdin=LINES)
    for row in rows_of(done.stdout):
        assert len(row["token_ids"]) == len(row["logprobs"]) == row["num_tokens"]
        assert all(isinstance(value, float) and value <= 0 for value in row["logprobs"])
    plain = rows_of(r1("sample", "--model", str(tiny), *FAST, stdin=done.stdout).stdout)
    assert all("logprobs" not in row and "token_ids" not in row for row in plain), "those of the earlier completion are gone"


def test_examples_are_shown_and_a_prompt_never_sees_its_own_answer(r1, tmp_path):
    examples = [{"prompt": f"What is {n} + 1?", "completion": f"<think>\n{n} and one\n</think>\n\n{n + 1}"} for n in range(3)]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
    with FakeServer() as server:
        done = r1("sample", "--model", "teacher", "--url", server.url, "--few-shot", "shots.jsonl", "--shots", "2", "--system", "Think.",
                  stdin=LINES)  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = {body["messages"][-1]["content"]: body["messages"] for _, body, _ in server.requests}
    assert set(asked) == {f"What is {n} + 1?" for n in range(3)}
    for question, messages in asked.items():
        assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
        shown = [message["content"] for message in messages[1:-1:2]]
        assert shown == [example["prompt"] for example in examples if example["prompt"] != question][:2]
        assert messages[2]["content"].startswith("<think>\n")


def test_a_rewrite_keeps_the_raw_completion_and_the_pair(r1, tiny, tmp_path):
    drawn = r1("sample", "--model", str(tiny), *FAST, "-k", "2", "--think-prefix", stdin=LINES).stdout
    with FakeServer(reasoning=True) as server:
        words = ("sample", "--model", "teacher", "--url", server.url, "--template", "rewrite", "-o", "out.jsonl", "--resume")
        done = r1(*words, stdin=drawn)
        assert done.returncode == 0, done.stderr
        rows = by_pair(rows_of((tmp_path / "out.jsonl").read_text()))
        raw = by_pair(rows_of(drawn))
        assert set(rows) == set(raw)
        for pair, row in rows.items():
            assert row["raw_completion"] == raw[pair]["completion"]
            assert (row["raw_model"], row["model"]) == (str(tiny), "teacher")
            assert row["prompt"] == raw[pair]["prompt"]
            assert row["completion"].startswith("<think>\n")
            assert "think_prefix" not in row
        assert any("Draft:\n<think>\n" in body["messages"][-1]["content"] for _, body, _ in server.requests)
        calls = len(server.requests)
        assert "0 completions (6 were there)" in r1(*words, stdin=drawn).stderr
        assert len(server.requests) == calls


def test_a_server_that_dies_leaves_the_rows_and_resume_draws_the_rest(r1, tmp_path):
    lines = "".join(json.dumps({"id": str(n), "prompt": f"prompt {n}"}) + "\n" for n in range(30))
    words = ("sample", "--model", "teacher", "--server-wait", "0.5", "--batch-size", "4", "-o", "out.jsonl", "--resume", "--template",
             "raw")  # fmt: skip
    with FakeServer() as server:
        port = server.port
        first = r1(*words, "-n", "12", "--url", server.url, stdin=lines)
        assert first.returncode == 0, first.stderr
    failed = r1(*words, "--url", f"http://127.0.0.1:{port}", stdin=lines)
    assert failed.returncode == 3
    assert "no server answered within" in failed.stderr
    assert len(rows_of((tmp_path / "out.jsonl").read_text())) == 12
    with FakeServer(faults=[fault.reset, fault.status(500), fault.status(429)]) as server:
        done = r1(*words, "--url", server.url, "--server-wait", "20", stdin=lines)
        assert done.returncode == 0, done.stderr
    rows = rows_of((tmp_path / "out.jsonl").read_text())
    assert sorted(int(row["id"]) for row in rows) == list(range(30))
    assert {row["seed"] for row in rows} == {seed_of(0, str(n), 0) for n in range(30)}


def test_a_key_reaches_the_server_and_nothing_else(r1, tmp_path):
    with FakeServer(key="sk-secret") as server:
        words = ("sample", "--model", "teacher", "--url", server.url, "--api-key-env", "TEACHER_KEY", "--verbose", "-o", "out.jsonl")
        done = r1(*words, stdin=LINES, env={"TEACHER_KEY": "sk-secret"})
        assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr, *(file.read_text() for file in tmp_path.iterdir())):
        assert "sk-secret" not in text
    without = [word for word in words if word != "--verbose"]
    assert_error(r1(*without, "--force", stdin=LINES), 3, "`TEACHER_KEY` holds no key", "export TEACHER_KEY=")


def test_a_refused_row_is_said_and_the_others_are_there(r1):
    with FakeServer(refuse="What is 1 + 1?") as server:
        done = r1("sample", "--model", "teacher", "--url", server.url, "-k", "2", stdin=LINES)
    assert done.returncode == 0, done.stderr
    assert {row["id"] for row in rows_of(done.stdout)} == {"p0", "p2"}
    assert "2 completions missing: the server refused them, the first: This model's maximum context length" in done.stderr
