"""`r1 sample` and `r1 grpo` on vLLM's real server: the same rows as from vLLM in this process, and weights that follow the training."""

import json

import pytest

from tests.contract.test_sample import LINES, by_pair, rows_of
from tests.vllm_server import serve

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
ROWS = ("--dtype", "float32", "--max-completion-length", "16", "--max-model-len", "256", "-k", "4", "--logprobs")
GRPO = ("--steps", "2", "--prompts-per-step", "2", "--group-size", "4", "--max-completion-length", "8", "--dtype", "float32",
        "--no-mask-truncated", "--beta", "0", "--lr", "0.01", "--rewards", "mine.py:third")  # fmt: skip
REWARD = "def third(row):\n    return float(len(row['completion']) % 3 == 0)\n"


@pytest.fixture(scope="module")
def url(tiny, tmp_path_factory):
    with serve(tiny, max_model_len=256, max_num_seqs=8, log=tmp_path_factory.mktemp("server") / "log") as address:
        yield address


def test_rows_are_those_of_vllm_in_this_process(r1, tiny, url):
    near = r1("sample", "--model", str(tiny), "--engine", "vllm", "--kv-cache-gib", "0.1", *ROWS, stdin=LINES)
    far = r1("sample", "--model", str(tiny), "--url", url, *ROWS, "--batch-size", "3", stdin=LINES)
    assert (near.returncode, far.returncode) == (0, 0), near.stderr + far.stderr
    assert "(server)" in far.stderr
    one, other = by_pair(rows_of(near.stdout)), by_pair(rows_of(far.stdout))
    assert len(one) == 12
    for pair, row in one.items():
        assert other[pair]["token_ids"] == row["token_ids"]
        assert other[pair]["logprobs"] == pytest.approx(row["logprobs"], abs=1e-4)
        assert {**other[pair], "logprobs": None} == {**row, "logprobs": None}


def test_words_are_enough(r1, tiny, url):
    """Without the model's folder: messages go out, and the server, whose template is the same, draws the same."""
    shared = ("--url", url, "--max-completion-length", "16", "-k", "2", "--temperature", "0.7")
    tokens = by_pair(rows_of(r1("sample", "--model", str(tiny), *shared, stdin=LINES).stdout))
    done = r1("sample", "--model", "teacher", *shared, stdin=LINES)
    assert done.returncode == 0, done.stderr
    words = by_pair(rows_of(done.stdout))
    assert set(words) == set(tokens)
    for pair, row in words.items():  # without the tokens, bytes at the end that are no whole character stay with vLLM
        assert row["completion"] == tokens[pair]["completion"].removesuffix("\ufffd")
        assert row["num_tokens"] == tokens[pair]["num_tokens"]
    done = r1("sample", "--model", "nobody", "--url", url, "--max-completion-length", "16", stdin=LINES)
    assert done.returncode == 2
    assert "does not serve `nobody`\n\nhint: known: " in done.stderr


def test_grpo_draws_from_the_weights_it_trains(r1, tiny, url, tmp_path):
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "in.jsonl").write_text(LINES)
    done = r1("grpo", "--model", str(tiny), "--url", url, *GRPO, "-o", "run", "in.jsonl")
    assert done.returncode == 0, done.stderr
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2
    assert metrics[0]["loss"] != 0, "nothing was learnt, so nothing is shown"
    for record in metrics:  # sampler and trainer agree: at step 2 only if the server has the weights of step 1
        assert record["sampler_mismatch"] == pytest.approx(0, abs=1e-6)
    again = r1("grpo", "--model", str(tiny), "--url", url, *GRPO, "-o", "again", "in.jsonl")
    assert again.returncode == 0, again.stderr
    first = json.loads((tmp_path / "again" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["sampler_mismatch"] == pytest.approx(0, abs=1e-6), "the server still had the weights of the run before"
