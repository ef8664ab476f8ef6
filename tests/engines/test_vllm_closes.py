"""What vLLM leaves behind in a process that goes on."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")]

SCRIPT = """
import sys
import torch
from r1cli.engines.load import load_engine
from r1cli.engines.protocol import Request, SamplingParams

torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=0, world_size=1)
engine = load_engine(sys.argv[1], engine="vllm", dtype="float32", max_model_len=64, kv_cache_gib=0.1)
[drawn] = engine.sample(iter([Request(0, [5, 6, 7], seed=0)]), SamplingParams(max_tokens=4))
engine.close()
total = torch.ones(1)
torch.distributed.all_reduce(total)
print("summed", total.item(), len(drawn.token_ids))
"""


def test_a_trainers_process_group_outlives_the_engine(tiny: Path, tmp_path: Path) -> None:
    """Saving at a run's end is collective, and vLLM's own shutdown ends every group there is."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny), str(tmp_path / "store")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "summed 1.0" in done.stdout
