"""Which layers of a model are replaced."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers.models.llama import modeling_llama

from r1cli.layers import cpu
from r1cli.layers.adopt import Lookup, adopt
from tests.train.test_compute_copy import distance


@pytest.mark.parametrize("padding_id", [None, 2])
def test_an_embedding_adds_to_the_rows_in_use(padding_id: int | None) -> None:
    torch.manual_seed(4)
    plain = nn.Embedding(9, 8, padding_idx=padding_id)
    weight = nn.Parameter(plain.weight.detach().clone())
    cast = nn.Parameter(weight.detach().to(torch.bfloat16))
    ids = torch.tensor([[1, 2, 2], [7, 1, 1]])
    slope = torch.randn(2, 3, 8).to(torch.bfloat16)
    for _ in range(2):  # gradients add up
        found = Lookup.apply(ids, cast, weight, padding_id)
        found.backward(slope)
        plain(ids).backward(slope.float())
    assert torch.equal(found, cast[ids]) and cast.grad is None
    assert torch.allclose(weight.grad, plain.weight.grad, atol=1e-6)


def test_a_norm_that_computes_something_else_is_left_alone() -> None:
    class OneMoreRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, hidden: Tensor) -> Tensor:
            return rms_norm(hidden, (8,), self.weight + 1, 1e-6)

    model = nn.Sequential(OneMoreRMSNorm(), nn.Linear(8, 8))
    adopt(model, {}, "cpu")
    assert "forward" not in model[0].__dict__ and "forward" in model[1].__dict__


def test_a_rotation_is_replaced_in_the_model_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(query.shape)
        return own(query, key, cos, sin)

    own = modeling_llama.apply_rotary_pos_emb
    monkeypatch.setattr(cpu, "rotation", lambda: rotate)
    model, other = small_model(), small_model()
    other.load_state_dict(model.state_dict())
    adopt(model, {}, "cpu")
    ids = torch.arange(12).view(2, 6)
    found, expected = model(input_ids=ids).logits, other(input_ids=ids).logits
    assert calls == [(2, 4, 6, 8)] * 2 and distance(found, expected) < 1e-5
    assert modeling_llama.apply_rotary_pos_emb is own


@pytest.mark.parametrize("kind", ["other arguments", "another rotation"])
def test_a_rotation_that_is_another_one_is_left_alone(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def interleaved(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return query * cos[:, None], key * cos[:, None]

    def with_one(part: Tensor) -> Tensor:
        return part

    function: Any = {"other arguments": with_one, "another rotation": interleaved}[kind]
    monkeypatch.setattr(cpu, "rotation", lambda: pytest.fail)
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", function)
    model = small_model()
    adopt(model, {}, "cpu")
    assert not any("forward" in layer.self_attn.__dict__ for layer in model.model.layers)


def small_model() -> Any:
    config = modeling_llama.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    return modeling_llama.LlamaForCausalLM(config)
