"""The problem that TRL's RewardTrainer and our code both solve: a small classifier whose weights are a formula, and a few preference rows.

Nothing here depends on a random generator, so that two environments with different libraries build the same numbers.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from tests.oracles.problem import wave
from tests.tiny import tiny_tokenizer

VOCAB = 384
MARGIN = "margin"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


TEXTS = [
    ("What is 12 + 30?", "12 + 30 = 42", "It is 41, I think.", 0.5),
    ("Name a colour.", "Blue", "A colour is what the eye makes of light, and there are many of them.", 0.0),
    ("Is it late?", "No.", "Yes.", 1.5),
    ("Count to three.", "1 2 3", "3 2 1 0", 0.25),
]
FORMATS: dict[str, list[dict[str, Any]]] = {
    "standard": [{"prompt": p + " ", "chosen": c, "rejected": r} for p, c, r, _ in TEXTS],
    "standard-implicit": [{"chosen": f"User: {p}\nAssistant: {c}", "rejected": f"User: {p}\nAssistant: {r}"} for p, c, r, _ in TEXTS],
    "conversational": [{"prompt": [user(p)], "chosen": [assistant(c)], "rejected": [assistant(r)]} for p, c, r, _ in TEXTS],
    "conversational-implicit": [{"chosen": [user(p), assistant(c)], "rejected": [user(p), assistant(r)]} for p, c, r, _ in TEXTS],
}


@dataclass(frozen=True)
class Case:
    """One objective on one format. trl: fields of TRL's RewardConfig. margins: whether the rows have them."""

    name: str
    format: str = "conversational"
    margins: bool = False
    center: float = 0.0
    pad_is_end: bool = False
    trl: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        more = [{MARGIN: text[3]} if self.margins else {} for text in TEXTS]
        return [{**row, **extra} for row, extra in zip(FORMATS[self.format], more, strict=True)]


CASES = [
    *[Case(name, name) for name in FORMATS],
    Case("margin", margins=True),
    Case("center", center=0.3, trl={"center_rewards_coefficient": 0.3}),
    Case("margin-center", "standard", margins=True, center=0.01, trl={"center_rewards_coefficient": 0.01}),
    Case("pad-is-end", pad_is_end=True),
    Case("pad-is-end-standard", "standard", pad_is_end=True),
]


def tokenizer_of(case: Case) -> Any:
    tokenizer = tiny_tokenizer(VOCAB)
    if case.pad_is_end:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def small_scorer(pad_id: int) -> Any:
    """A Llama classifier of two layers with every weight set by `wave`."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=128,
        num_labels=1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=pad_id,
    )
    model = LlamaForSequenceClassification(config)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
            parameter.copy_(wave(parameter.shape, number, 0.3) + (1.0 if "norm" in name else 0.0))
    return model
