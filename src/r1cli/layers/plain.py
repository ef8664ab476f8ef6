"""What kind of attention a model has."""

from typing import Any


def plain_attention(model: Any) -> bool:
    """True for a model of transformers whose every layer is plain attention over all earlier tokens, with keys and values of one size, and
    is computed by the attention function that its configuration names.

    What a class does is known from the model, not from the folder's configuration: a class for text alone takes a part of that one.
    """
    decoder = model.get_decoder()
    if not getattr(type(decoder), "_supports_attention_backend", False):
        return False
    config = decoder.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    odd = ("attn_logit_softcapping", "attention_dropout", "attn_pdrop", "kv_lora_rank", "attention_chunk_size")
    sliding = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return kinds == {"full_attention"} and not sliding and not any(getattr(config, name, None) for name in odd)
