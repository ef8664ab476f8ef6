"""vLLM on a GPU: what it draws with after it slept, and after weights came by NCCL or a folder, against transformers with those weights."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.engines.load import load_engine
from r1cli.engines.protocol import Completion, Engine, Request, SamplingParams
from tests.tiny import tiny_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not torch.cuda.is_available() or importlib.util.find_spec("vllm") is None, reason="needs a GPU and vLLM on it"),
]
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21, 22], list(range(30, 60))]
PARAMS = SamplingParams(max_tokens=12, temperature=1.0, logprobs=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of one shape and different weights."""
    made = [tiny_model(tmp_path_factory.mktemp("models") / str(seed), hidden=256, layers=2, seed=seed) for seed in (0, 1)]
    return made[0], made[1]


def weights_of(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).cuda()
    yield from ((name, weight.detach()) for name, weight in model.named_parameters())


def drawn(engine: Engine) -> list[Completion]:
    requests = [Request(number, ids, seed=number) for number, ids in enumerate(PROMPTS)]
    return sorted(engine.sample(iter(requests), PARAMS), key=lambda completion: completion.key)


def distance(completions: list[Completion], folder: Path) -> float:
    """Mean absolute difference between an engine's log-probabilities and those of transformers with a folder's weights, in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).cuda()
    apart = []
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        ids = torch.tensor([prompt + completion.token_ids], device="cuda")
        with torch.no_grad():
            scores = model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
        right = scores.gather(1, torch.tensor(completion.token_ids, device="cuda")[:, None])[:, 0]
        apart.append((right.cpu() - torch.tensor(completion.logprobs)).abs())
    return float(torch.cat(apart).mean())


def test_it_sleeps_and_wakes_to_new_weights(folders: tuple[Path, Path]) -> None:
    first, second = folders
    engine = load_engine(str(first), engine="vllm", sleep=True, gpu_memory=0.2, max_model_len=128)
    try:
        assert distance(drawn(engine), first) < 0.15
        before = torch.cuda.mem_get_info()[0]
        engine.rest()
        freed = torch.cuda.mem_get_info()[0] - before
        assert freed > 0.15 * torch.cuda.mem_get_info()[1]  # the cache of 0.2 and the weights
        engine.load_weights(weights_of(second))
        completions = drawn(engine)
        assert distance(completions, second) < 0.15 < 0.5 < distance(completions, first)
        engine.rest()
        engine.load_weights(weights_of(first))
        assert distance(drawn(engine), first) < 0.15
        engine.rest()
    finally:
        engine.close()


def test_new_weights_without_sleep(folders: tuple[Path, Path]) -> None:
    first, second = folders
    engine = load_engine(str(first), engine="vllm", gpu_memory=0.2, max_model_len=128)
    try:
        for folder in (second, first, second):
            engine.load_weights(weights_of(folder))
            assert distance(drawn(engine), folder) < 0.15
    finally:
        engine.close()


PUSH = """
import sys
from tests.engines.test_vllm_gpu import drawn, distance, weights_of
from r1cli.engines.load import Remote, load_engine
from pathlib import Path
first, second, url, way = sys.argv[1:]
engine = load_engine(first, engine="server", remote=Remote(urls=(url + "/v1",), weights=way), max_model_len=128)
found = [distance(drawn(engine), Path(first))]
for folder in (second, first):
    engine.load_weights(weights_of(Path(folder)))
    found.append(distance(drawn(engine), Path(folder)))
engine.close()
print("apart", *found)
"""


def test_servers_take_weights_by_nccl_and_by_folder(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one GPU: NCCL refuses two processes there unless it takes them for two hosts, between which it uses sockets."""
    from tests.vllm_server import serve

    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("NCCL_HOSTID", "the server")
    root = str(Path(__file__).parents[2])
    with serve(folders[0], max_model_len=128, max_num_seqs=8, log=tmp_path / "log", on_gpu=0.2) as url:
        for way in ("nccl", "folder", "nccl"):  # the third joins a group of its own: the first left its one
            environment: dict[str, Any] = {**os.environ, "NCCL_HOSTID": "the trainer"}
            environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
            done = subprocess.run(
                [sys.executable, "-c", PUSH, str(folders[0]), str(folders[1]), url, way],
                env=environment, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (way, done.stderr[-2000:], (tmp_path / "log").read_text()[-3000:])
            assert all(float(number) < 0.15 for number in done.stdout.split("apart")[1].split()), (way, done.stdout)
