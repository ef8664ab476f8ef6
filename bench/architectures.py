"""Models of real sizes with random weights, for measurements that need no trained model: of speed, memory, limits."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

# The sizes in the published config.json; all tie the head to the embeddings.
QWEN = {"model_type": "qwen2", "vocab_size": 151936, "max_position_embeddings": 32768, "rope_theta": 1e6, "tie_word_embeddings": True}
ARCHITECTURES = {
    "qwen2.5-0.5b": QWEN | {
        "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864,
    },
    "qwen2.5-1.5b": QWEN | {
        "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960,
    },
    "smollm2-135m": {
        "model_type": "llama", "vocab_size": 49152, "max_position_embeddings": 8192, "rope_theta": 1e5, "tie_word_embeddings": True,
        "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536,
    },
}  # fmt: skip


def folder_of(model: str, work: str, tokenizer: str | None = None) -> str:
    """A folder with the model: the one given, or an architecture with random weights (bfloat16) and that tokenizer, written to `work`."""
    if model not in ARCHITECTURES:
        return model
    sizes = dict(ARCHITECTURES[model])
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(sizes.pop("model_type"), **sizes), dtype=torch.bfloat16)
    if tokenizer is not None:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
        ends = {"eos_token_id": loaded.eos_token_id, "pad_token_id": loaded.pad_token_id}
        made.generation_config = GenerationConfig(do_sample=True, **ends)
        made.config.update(ends)
        loaded.save_pretrained(work)
    made.save_pretrained(work)
    del made
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the room is that of the sides
    return work
