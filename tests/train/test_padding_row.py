"""A padding token that ends turns too: its embedding is trained like any other."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.train.batches import Sample, collate, group_rows
from r1cli.train.model import load_policy
from r1cli.train.reward_model import load_reward_model
from r1cli.train.update import forward
from tests.tiny import tiny_model, tiny_tokenizer

END = tiny_tokenizer().eos_token_id


def folder_with_pad(path: Path, pad_id: int) -> str:
    """An untied model whose configuration names this padding token."""
    folder = tiny_model(path, tied=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": pad_id}))
    return str(folder)


def trained(policy: Any) -> dict[str, torch.Tensor]:
    """The weights after two steps on a conversation whose prompt has an end of turn."""
    batch = collate(group_rows([Sample(0, [7, 8, END, 9, 10], [11, 12, END])]), 0)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (-forward(policy, batch)[0].sum()).backward()
        gradient = policy.model.get_input_embeddings().weight.grad
        assert gradient[END].abs().max() > 0 and gradient[0].abs().max() == 0
        optimizer.step()
    return dict(policy.model.named_parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_end_of_a_turn_is_learnt_where_it_pads_too(tmp_path: Path, dtype: str) -> None:
    found = []
    for name, pad_id in (("same", END), ("own", 0)):
        policy = load_policy(folder_with_pad(tmp_path / name, pad_id))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            found.append(trained(policy))
    one, other = found
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_reward_model_learns_it_too(tmp_path: Path) -> None:
    model = load_reward_model(folder_with_pad(tmp_path / "model", END), pad_id=END)
    embedding = model.model.get_input_embeddings()
    embedding(torch.tensor([END])).sum().backward()
    assert embedding.weight.grad[END].abs().max() > 0
