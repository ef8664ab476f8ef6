"""Rotations that depend on the longest sequence of a batch: LongRoPE (Phi-3, Phi-4-mini) and dynamic NTK, as transformers has them.

Beyond the length that a model was first trained for, other frequencies rotate; transformers chooses them by the largest position of what it
is given, so that one long sequence changes what is computed for those beside it.
"""

from typing import Any


def same_up_to(model: Any) -> int | None:
    """The most positions with which a model rotates as with one; None for a model that does so at any length."""
    text = model.config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = list(rope.values()) if rope and all(isinstance(value, dict) for value in rope.values()) else [rope]
    limits = [
        kind.get("original_max_position_embeddings") or text.max_position_embeddings
        for kind in kinds
        if kind.get("rope_type") == "longrope" or "dynamic" in str(kind.get("rope_type"))
    ]
    return min(limits, default=None)


def forget_longest(model: Any) -> None:
    """Rotate the next batch by its own length: dynamic NTK goes by the longest sequence that it has ever seen."""
    for module in model.modules():
        first = getattr(module, "original_inv_freq", None)
        if first is not None and hasattr(module, "max_seq_len_cached"):
            module.inv_freq = first.to(module.inv_freq.device)
            module.max_seq_len_cached = module.original_max_seq_len
