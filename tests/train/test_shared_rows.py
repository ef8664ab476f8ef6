"""Which models may have several sequences in a row, and that the others do not get them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from r1cli.train.batches import collate, group_rows
from r1cli.train.logprobs import Policy
from r1cli.train.model import load_policy
from r1cli.train.update import forward
from tests.train.toy import PAD, VOCAB, group_samples, plain_logprobs


@pytest.fixture
def windowed(tmp_path: Path) -> Policy:
    """A model whose layers look back four tokens at most."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
        initializer_range=0.2,
        attn_implementation="sdpa",
    )
    MistralForCausalLM(config).save_pretrained(tmp_path / "windowed")
    return load_policy(str(tmp_path / "windowed")).eval()


def test_a_plain_model_shares_rows(new_policy: Callable[..., Any]) -> None:
    assert new_policy().row_length(2048) == 2048


def test_a_model_with_a_window_gets_a_row_a_sequence(windowed: Policy) -> None:
    samples = group_samples(groups=2, size=3)
    rows = group_rows(samples, windowed.row_length(2048))
    assert all(row.plain for row in rows) and len(rows) == len(samples)
    batch = collate(rows, PAD)
    logprobs_N, _ = forward(windowed, batch)
    expected = torch.cat([plain_logprobs(windowed.model, sample)[0] for sample in batch.samples])
    torch.testing.assert_close(logprobs_N.double(), expected, rtol=1e-5, atol=1e-5)


def test_sharing_would_change_what_it_computes(windowed: Policy) -> None:
    """The reason for the rule: the mask of a shared row has no window."""
    batch = collate(group_rows(group_samples(groups=2, size=3)), PAD)
    logprobs_N, _ = forward(windowed, batch)
    expected = torch.cat([plain_logprobs(windowed.model, sample)[0] for sample in batch.samples])
    assert (logprobs_N.double() - expected).abs().max() > 1e-3
