"""What an engine must know of a model folder beside its weights: which tokens end a completion, and which tensors the weights consist of.

Both engines read it here, so that they stop at the same tokens and refuse the same incomplete weights and torn files.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from r1cli.errors import Exit, R1Error
from r1cli.model_folder import loading, no_memory, read_json

if TYPE_CHECKING:
    import torch

JSON_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "model.safetensors.index.json",
)  # fmt: skip


def check_whole(folder: str) -> str:
    """The folder itself, unless (`R1Error`, exit 2) a file of it is torn, as by a broken copy. Of weights the headers are read.

    It is asked before an engine starts: each engine, and each library below it, has errors of its own for such a file.
    """
    from safetensors import SafetensorError, safe_open

    for name in JSON_FILES:
        _read(folder, name)
    for file in sorted(Path(folder).glob("*.safetensors")):
        with loading(file):
            try:
                with safe_open(file, framework="pt"):
                    pass
            except SafetensorError as error:
                if not no_memory(error):  # whoever loads it says so
                    raise
    return folder


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


@runtime_checkable
class FromTrainer(Protocol):
    """Weights that a trainer hands over under names of its own, and can name as files do (`train.checkpoint_names.Weights`)."""

    def file_names(self) -> tuple[frozenset[str], frozenset[str]]:
        """(names that `in_files` gives, names of tied weights that files may have besides)."""
        ...

    def in_files(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        """The weights, once."""
        ...


def check_handing_over(weights: FromTrainer, folder: str) -> None:
    """Refuse (`R1Error`, exit 2), before anything is drawn, weights whose names are not those of the folder's files."""
    try:
        named, again = weights.file_names()
    except Exception as error:  # of transformers, for a conversion that it cannot take back
        raise R1Error(
            f"the weights of `{folder}` cannot be named as its files do: {error}", hint="--engine transformers", code=Exit.USAGE
        ) from error
    _check_names(named, again, tensor_names(folder), folder)


def _check_names(named: frozenset[str], again: frozenset[str], expected: frozenset[str], folder: str) -> None:
    """Files may have more than a trainer holds (an encoder of images, layers that guess ahead). But where it holds what they do not name,
    that more may be the same under another name, and an engine would keep it as it was."""
    missing, strange = expected - named - again, named - expected - {"lm_head.weight"}
    if missing and strange:
        raise R1Error(
            f"the weights cannot be handed over to an engine that reads `{folder}`: its files name {len(missing)} tensors as the trained "
            f"model does not, first `{min(missing)}`; that has `{min(strange)}`",
            hint="--engine transformers, or load the folder with transformers and save it again (save_pretrained)",
            code=Exit.USAGE,
        )


def as_in_files(
    weights: Iterable[tuple[str, "torch.Tensor"]], expected: frozenset[str], folder: str, *, tied: bool
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Weights for an engine that reads files: `whole_weights` under the names of the files in `folder`, which are `expected`.

    What the files have and the trainer does not hold comes from them, as it was: an engine that has slept has lost it. What they do not
    have (a buffer) does not come: the engine has no place for it.
    """
    if not isinstance(weights, FromTrainer):
        yield from whole_weights(weights, expected, tied=tied)
        return
    named, again = weights.file_names()
    _check_names(named, again, expected, folder)
    device = None
    for name, tensor in whole_weights(weights.in_files(), expected & named, tied=tied):
        device = tensor.device
        if not expected or name in expected:
            yield name, tensor
    yield from _stored(folder, expected - named - again, device)


def owning(weights: Iterable[tuple[str, "torch.Tensor"]]) -> Iterator[tuple[str, "torch.Tensor"]]:
    """The same, with a copy of what is a part of a larger tensor (an expert of a layer): as such it would not be written to a file."""
    for name, tensor in weights:
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        yield name, tensor if whole else tensor.clone()


def _stored(folder: str, names: frozenset[str], device: Any) -> Iterator[tuple[str, "torch.Tensor"]]:
    from safetensors import safe_open

    for file in sorted(Path(folder).glob("*.safetensors")) if names else ():
        with safe_open(file, framework="pt") as weights:
            for name in sorted(names.intersection(weights.keys())):
                yield name, weights.get_tensor(name).to(device)


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
    return read_json(file) if file.is_file() else {}
