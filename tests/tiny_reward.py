"""A reward model small enough to build in a test: random weights, one label, the tokenizer and template of `tests.tiny`.

folder = tiny_reward_model(tmp_path / "rm", seed=1)       # AutoModelForSequenceClassification loads it
"""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer


def tiny_reward_model(
    path: str | Path,
    *,
    seed: int = 0,
    head_seed: int = 0,
    labels: int = 1,
    max_length: int = 512,
    pad: bool = True,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """Write it to `path` and return it. seed: of the backbone; head_seed: of the last layer; pad: whether it names a padding token."""
    path = Path(path)
    tokenizer = tiny_tokenizer(chat_template=chat_template)
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=max_length,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id if pad else None,
        num_labels=labels,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForSequenceClassification(config)
        torch.manual_seed(head_seed)
        torch.nn.init.normal_(model.score.weight, std=0.2)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
