"""Attention of one token a sequence against torch's in double precision: on a GPU, or in Triton's interpreter where Triton is installed."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.train.test_compute_copy import distance

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
runs = pytest.mark.skipif(DEVICE == "cpu" and not os.environ.get("TRITON_INTERPRET"), reason="test_in_the_interpreter runs it")
decoding: Any = pytest.importorskip("r1cli.layers.decoding", reason="needs Triton", exc_type=ImportError)


@pytest.mark.skipif(DEVICE == "cuda" or "TRITON_INTERPRET" in os.environ, reason="the kernel itself runs")
def test_in_the_interpreter() -> None:
    """In a process of its own: Triton must be told before anything imports it."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", __file__], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout


@runs
@pytest.mark.parametrize("newest", [0, 63, 64, 300, 767])
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(14, 2, 64), (3, 3, 48), (24, 1, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_is_attention_over_the_columns_that_are_shown(newest: int, heads: int, key_heads: int, size: int, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16")
    torch.manual_seed(newest)
    rows, columns = 3, 768
    query = torch.randn(rows, heads, size, device=DEVICE).to(dtype)
    key, value = (torch.randn(rows, key_heads, columns, size, device=DEVICE).to(dtype) for _ in range(2))
    key[:, :, newest + 1 :], value[:, :, newest + 1 :] = torch.nan, torch.nan  # never read
    mask = torch.zeros(rows, columns, dtype=dtype, device=DEVICE)
    mask[1, : newest // 2], mask[2, :newest] = torch.finfo(dtype).min, torch.finfo(dtype).min
    found = decoding.attend(query, key, value, mask, torch.tensor([newest], device=DEVICE), 0.3)
    keys, values = (part[:, :, : newest + 1].double().repeat_interleave(heads // key_heads, 1) for part in (key, value))
    seen = mask[:, None, None, : newest + 1] == 0
    expected = scaled_dot_product_attention(query[:, :, None].double(), keys, values, attn_mask=seen, scale=0.3)[:, :, 0]
    assert distance(found, expected) < (1e-5 if dtype == torch.float32 else 1e-2)
