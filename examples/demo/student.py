"""Make a smaller student from a model: the same architecture with fewer layers, spread evenly over the depth.

    python examples/demo/student.py runs/demo/all-scenario-rl runs/demo/student-start --layers 20

The layers that stay keep their weights, so the student starts with the teacher's embeddings but without its ability.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def kept_layers(depth: int, layers: int) -> list[int]:
    """`layers` places out of `depth`, the first and the last among them, as evenly as integers allow."""
    if not 2 <= layers <= depth:
        raise SystemExit(f"--layers must be from 2 to {depth}, the depth of the model")
    return [round(place * (depth - 1) / (layers - 1)) for place in range(layers)]


def shrink(source: Path, out: Path, layers: int) -> None:
    """Write the student as a plain Hugging Face folder."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    stack = model.get_decoder()
    stack.layers = torch.nn.ModuleList(stack.layers[place] for place in kept_layers(len(stack.layers), layers))
    for place, layer in enumerate(stack.layers):
        layer.self_attn.layer_idx = place
    model.config.num_hidden_layers = layers
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, required=True)
    args = parser.parse_args()
    shrink(args.source, args.out, args.layers)
