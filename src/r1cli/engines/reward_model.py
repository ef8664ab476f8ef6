"""Reward models in this process: any folder that `AutoModelForSequenceClassification` loads with one label.

    model = load_reward_model(folder, name="helpful", ...)
    model.score([(prompt, reply), ...])        a logit each

The same folder is loaded once a process, and weights that are equal in two models are held once: two heads on one frozen backbone, or two
LoRA adapters on one base (folders that peft wrote), cost one backbone. Conversations are sorted by length and padded into batches of at
most `batch_tokens` positions. The last layer is computed in float32: a logit of 5 in bfloat16 is only known to 0.03.
"""

import gc
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from r1cli.engines.model_files import check_whole
from r1cli.engines.precision import leave_out_cudnn_attention, resolve_dtype
from r1cli.errors import Exit, R1Error, first_line
from r1cli.model_folder import load_tokenizer
from r1cli.text.reply import Conversation, ReplyRenderer

CPU_TOKENS, GPU_TOKENS = 4096, 65536

_loaded: dict[tuple[str, str, str], tuple[Any, int | None]] = {}  # -> (model, the padding token it names)


class LocalRewardModel:
    """See above. `score` is that of `rewards.preference.RewardModel`.

    max_length: most tokens of a conversation: what the model has positions for.
    """

    def __init__(self, model: Any, renderer: ReplyRenderer, *, max_length: int, batch_tokens: int, own_pad: int | None) -> None:
        self._model, self._renderer = model, renderer
        self.max_length, self._batch_tokens, self._own_pad = max_length, batch_tokens, own_pad

    def score(self, conversations: Sequence[Conversation]) -> list[float | None]:
        """A logit each, in order; None for a conversation longer than `max_length` tokens."""
        ids = [self._renderer.ids(prompt, reply) for prompt, reply in conversations]
        scores: list[float | None] = [None] * len(ids)
        fitting = [place for place, tokens in enumerate(ids) if 0 < len(tokens) <= self.max_length]
        for batch in _batches(fitting, [len(tokens) for tokens in ids], self._batch_tokens):
            for place, score in zip(batch, self._logits([ids[place] for place in batch]), strict=True):
                scores[place] = score
        return scores

    @torch.inference_mode()
    def _logits(self, ids_B: list[list[int]]) -> list[float]:
        """Logits of one padded batch. Padding is on the right; the model looks at the last token that is no padding.

        A model without a padding token reads the very last token: it is padded with one that the batch does not hold.
        """
        pad = self._own_pad if self._own_pad is not None else _unused(ids_B, self._model.config.get_text_config().vocab_size)
        if pad is None:
            return [self._logits([ids])[0] for ids in ids_B]
        self._model.config.get_text_config().pad_token_id = self._model.config.pad_token_id = pad
        longest = max(len(ids) for ids in ids_B)
        device = next(self._model.parameters()).device
        input_ids_BT = torch.tensor([ids + [pad] * (longest - len(ids)) for ids in ids_B], device=device)
        mask_BT = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in ids_B], device=device)
        logits_B1: Tensor = self._model(input_ids=input_ids_BT, attention_mask=mask_BT).logits
        return logits_B1.float().squeeze(-1).tolist()


def load_reward_model(
    folder: str,
    *,
    name: str,
    dtype: str = "auto",
    template: str = "own",
    batch_tokens: int = 0,
    device: Any = None,
    trust_remote_code: bool = False,
) -> LocalRewardModel:
    """Load a reward model, or take the one that is loaded already.

    name: what messages call it. batch_tokens: most positions of a forward pass, padding included; 0: 4,096 on a CPU, 65,536 on a GPU.
    device: where; None is the GPU of this process, or the CPU.

    Raises `R1Error` (exit 2) for a model with more than one label, without its last layer, or without a chat template to render with.
    """
    leave_out_cudnn_attention()
    where = torch.device(device) if device is not None else _device()
    tokenizer = load_tokenizer(check_whole(folder), trust_remote_code=trust_remote_code)
    renderer = ReplyRenderer(tokenizer, template=template, name=f"reward model `{name}`")
    key = (str(Path(folder).resolve()) if Path(folder).is_dir() else folder, resolve_dtype(dtype), str(where))
    if key not in _loaded:
        adapter = is_adapter(folder)
        model = (_load_adapter if adapter else _load)(folder, name, key[1], trust_remote_code)
        own_pad = tokenizer.pad_token_id if adapter else model.config.get_text_config().pad_token_id
        for other, _ in _loaded.values():
            share_equal_weights(model, other)
        _loaded[key] = model.to(where), own_pad
        gc.collect()
    model, own_pad = _loaded[key]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    return LocalRewardModel(
        model,
        renderer,
        max_length=min(positions, tokenizer.model_max_length),
        batch_tokens=batch_tokens or (GPU_TOKENS if where.type == "cuda" else CPU_TOKENS),
        own_pad=own_pad,
    )


def share_equal_weights(model: Any, other: Any) -> int:
    """Let `model` use the weights of `other` where name, type and values are the same; returns how many values it does not hold itself."""
    theirs, shared = dict(other.named_parameters()), 0
    for name, weights in model.named_parameters():
        held = theirs.get(name)
        if held is not None and held.shape == weights.shape and held.dtype == weights.dtype:
            moved = weights.data.to(held.device)
            if torch.equal(moved, held.data):
                weights.data = held.data
                shared += weights.numel()
    return shared


def _load(folder: str, name: str, dtype: str, trust_remote_code: bool) -> Any:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if config.num_labels != 1:
        raise R1Error(
            f"`{folder}` is no reward model: it has {config.num_labels} labels (architecture {', '.join(config.architectures or ['?'])})",
            hint="a reward model is a sequence classifier with one label: `r1 rm` trains one",
            code=Exit.USAGE,
        )
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True, trust_remote_code=trust_remote_code
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise R1Error(
            f"reward model `{name}` (`{folder}`) cannot be loaded: {first_line(error)}",
            hint="it must load with transformers' AutoModelForSequenceClassification",
            code=Exit.USAGE,
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise R1Error(
            f"`{folder}` is no whole reward model: `{missing[0]}` is not among its weights and would be random",
            hint="a language model has no such layer: `r1 rm` trains it",
            code=Exit.USAGE,
        )
    return _exact_head(model).eval().requires_grad_(False)


def is_adapter(folder: str) -> bool:
    """Whether a folder holds a LoRA adapter and no model."""
    return (Path(folder) / "adapter_config.json").is_file() and not (Path(folder) / "config.json").is_file()


def _load_adapter(folder: str, name: str, dtype: str, trust_remote_code: bool) -> Any:
    """The base that an adapter names, with the adapter and its last layer on it."""
    if importlib.util.find_spec("peft") is None:
        raise R1Error(f"reward model `{name}` is an adapter, which needs `peft`", hint="pip install 'r1cli[lora]'", code=Exit.ENVIRONMENT)
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(folder)
    if "score" not in (getattr(config, "modules_to_save", None) or ()):
        raise R1Error(
            f"the adapter `{folder}` is no reward model: it does not hold the last layer `score`",
            hint="`r1 rm` trains one",
            code=Exit.USAGE,
        )
    base = config.base_model_name_or_path
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=1, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
        )
        model = PeftModel.from_pretrained(model, folder)
    except (ValueError, OSError, RuntimeError) as error:
        raise R1Error(
            f"reward model `{name}` (adapter `{folder}` on `{base}`) cannot be loaded: {first_line(error)}",
            hint="the base must be where adapter_config.json says (base_model_name_or_path)",
            code=Exit.USAGE,
        ) from error
    return _exact_head(model).eval().requires_grad_(False)


def _exact_head(model: Any) -> Any:
    """The model with its last layer computed in float32."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear) and layer.out_features == 1:
            layer.float().register_forward_pre_hook(lambda _, inputs: tuple(each.float() for each in inputs))
    return model


def _device() -> torch.device:
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def _batches(places: Sequence[int], lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places by length, in batches of at most `most` positions once padded (a single longer one is a batch of its own)."""
    batch: list[int] = []
    for place in sorted(places, key=lambda place: lengths[place]):
        if batch and lengths[place] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _unused(ids_B: list[list[int]], vocabulary: int) -> int | None:
    """A token that no sequence of the batch holds; None when they hold all and there is more than one."""
    held = {token for ids in ids_B for token in ids}
    return next((token for token in range(vocabulary) if token not in held), 0 if len(ids_B) == 1 else None)
