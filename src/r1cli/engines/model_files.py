"""What an engine must know of a model folder beside its weights: which tokens end a completion, and which tensors the weights consist of.

Both engines read it here, so that they stop at the same tokens and refuse the same incomplete weights.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1cli.errors import Exit, R1Error

if TYPE_CHECKING:
    import torch


def end_ids(folder: str, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a completion: those of generation_config.json (or config.json), and the tokenizer's own.

    Chat models often have several (`<|im_end|>` and `<|endoftext|>`). An engine that honours only one runs past the others and
    reports the completion as cut.
    """
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        named = _read(folder, name).get("eos_token_id")
        if named is not None:
            found.update(named if isinstance(named, list) else [named])
            break
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    return frozenset(found)


def refuse_classifier(folder: str) -> str:
    """The folder itself, unless (`R1Error`, exit 2) it is a reward model: with tied weights it would load as a language model, and write
    what it never learnt."""
    if any(name.endswith("ForSequenceClassification") for name in _read(folder, "config.json").get("architectures") or []):
        raise R1Error(
            f"`{folder}` is a reward model (or another classifier): it writes nothing",
            hint="name the model it was trained from; it scores as --reward-model NAME=FOLDER",
            code=Exit.USAGE,
        )
    return folder


def is_tied(folder: str) -> bool:
    """Whether the output layer is the embedding matrix: then a checkpoint's `lm_head.weight` is the same tensor a second time."""
    config = _read(folder, "config.json")
    text = config.get("text_config") or config
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))


def tensor_names(folder: str) -> frozenset[str]:
    """Names of the tensors in the folder's safetensors files; empty when the weights are in another format."""
    from safetensors import safe_open

    names: set[str] = set()
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            names.update(weights.keys())
    return frozenset(names - {"lm_head.weight"} if is_tied(folder) else names)


def whole_weights(
    weights: Iterable[tuple[str, "torch.Tensor"]], expected: frozenset[str], *, tied: bool
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """The weights one by one, detached, without a tied `lm_head.weight`.

    Raises `R1Error` at the end when some of `expected` never came: an engine would go on sampling from a mixture of old and new
    weights, which no later check can see.
    """
    missing = set(expected)
    for name, tensor in weights:
        missing.discard(name)
        if not (tied and name == "lm_head.weight"):
            yield name, tensor.detach()
    if missing:
        raise R1Error(
            f"weights are incomplete: {len(missing)} tensors did not come, first `{min(missing)}`",
            hint="name the tensors as the model's safetensors files do",
        )


def _read(folder: str, name: str) -> dict[str, Any]:
    """A JSON file of a model folder; {} where there is none. Raises `R1Error` (exit 2) for one that is damaged."""
    file = Path(folder) / name
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise R1Error(f"`{file}` cannot be read: {error}", hint="copy or fetch the folder again", code=Exit.USAGE) from error
    if not isinstance(value, dict):
        raise R1Error(f"`{file}` is not a JSON object", hint="copy or fetch the folder again", code=Exit.USAGE)
    return value
