"""A reward model: a causal language model's body with a head of one number, read at the last token of prompt and completion.

It is what transformers calls sequence classification with one label, and scores what `AutoModelForSequenceClassification` scores: the
number at the last token that is not padding (`scored_ids`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import AutoConfig, AutoModelForSequenceClassification

from r1cli.errors import Exit, R1Error
from r1cli.train.logprobs import Policy
from r1cli.train.lora import CLASSIFICATION, LoraConfig, add_lora
from r1cli.train.lora import NAME as ADAPTER
from r1cli.train.model import train_every_row
from r1cli.train.probe import settle_scores


class RewardModel(Policy):
    """A `Policy` in all but its head: the same body, masks, computation type and adapters; its forward pass gives scores."""

    def forward(  # type: ignore[override]  # a Policy gives two values a token, this one
        self, input_ids_BT: Tensor, position_ids_BT: Tensor, marks_BT: Tensor, source_N: Tensor, target_N: Tensor | None = None
    ) -> tuple[Tensor]:
        """(score [N],), float32. source_N: index into the flattened B x T positions of each sequence's last token."""
        kind = input_ids_BT.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else next(self.model.parameters()).dtype
        model = self._computing(dtype)
        with torch.autocast(kind, enabled=model is self.model and torch.is_autocast_enabled(kind)):
            hidden_NH = self._hidden(model, dtype, input_ids_BT, position_ids_BT, marks_BT, source_N)
        with torch.autocast(kind, enabled=False):  # 8 bits would make many scores equal
            head = self.head
            scores_N1 = linear(hidden_NH.float(), head.weight.float(), None if head.bias is None else head.bias.float())
        return (scores_N1.squeeze(-1),)

    @property
    def head(self) -> Any:
        """The layer that gives the score; with LoRA the trained one of the two that peft keeps."""
        score = self.model.score
        return score if self.lora is None else score.modules_to_save[ADAPTER]


def load_reward_model(
    folder: str,
    *,
    pad_id: int,
    seed: int = 0,
    gradient_checkpointing: bool = False,
    trust_remote_code: bool = False,
    lora: LoraConfig | None = None,
    dtype: str = "float32",
) -> RewardModel:
    """The model with float32 weights and a head of one number: the folder's own if it has one, else drawn from `seed`.

    With `lora` only its adapter and the head are float32 and trained (`load_policy`).

    Raises `R1Error` (exit 2) when transformers has no sequence classification for this architecture, or the folder's head has more numbers.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    _check(folder, config)
    config.num_labels, config.pad_token_id = 1, pad_id
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU: `torch.manual_seed` would have every GPU draw the same dropout
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=dtype, trust_remote_code=trust_remote_code
        )
    if not hasattr(model, "score"):
        raise R1Error(
            f"the classification head of `{folder}` ({config.model_type}) is not a single layer called `score`",
            hint="give a causal language model, such as Llama, Qwen, Mistral or Gemma",
            code=Exit.USAGE,
        )
    train_every_row(model)
    policy = RewardModel(model)
    settle_scores(policy, pad_id)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora:
        policy.lora = add_lora(model, lora, task=CLASSIFICATION)
    return policy


def _check(folder: str, config: Any) -> None:
    names = list(getattr(config, "architectures", None) or [])
    if any(name.endswith("ForSequenceClassification") for name in names) and config.num_labels != 1:
        raise R1Error(
            f"`{folder}` is a classifier of {config.num_labels} labels, a reward model has one number",
            hint="give a causal language model, or a reward model to go on from",
            code=Exit.USAGE,
        )
    if type(config) not in AutoModelForSequenceClassification._model_mapping and not getattr(config, "auto_map", None):
        raise R1Error(
            f"transformers has no sequence classification for `{config.model_type}` (`{folder}`)",
            hint="give a model of another family, such as Llama, Qwen, Mistral or Gemma",
            code=Exit.USAGE,
        )


def scored_ids(ids: Sequence[int], pad_id: int) -> list[int]:
    """The tokens up to the one whose hidden state is scored: the last that is not padding.

    transformers finds the end of a sequence by the padding token. Where that is the end-of-sequence token too, what is scored is the
    token before it, here as there. What follows the scored token cannot change the score: attention is causal.
    """
    last = max((place for place, token in enumerate(ids) if token != pad_id), default=len(ids) - 1)
    return list(ids[: last + 1])
