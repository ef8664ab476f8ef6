"""A language model small enough to build in a test: random Llama weights and a real byte-level BPE tokenizer, made without a network.

    from tests.tiny import tiny_model
    folder = tiny_model(tmp_path / "model")         # a Hugging Face folder that transformers, vLLM and r1 load like any other

The tokenizer covers every string (byte fallback by construction), has a ChatML template with a generation prompt, and an end token that
is not the padding token. The weights are a function of `seed` alone.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BOS, END, START = "<|pad|>", "<|bos|>", "<|im_end|>", "<|im_start|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINES = [
    "What is 12 + 30? <think>\n12 + 30 = 42\n</think>\n<answer>42</answer>",
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it.",
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "You are a helpful assistant. user system assistant 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
]


def tiny_tokenizer(vocab: int = 384, *, chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocab` entries (256 bytes, 4 special tokens, the rest merges learnt from a few lines)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=[PAD, BOS, END, START], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=END, extra_special_tokens=[START])
    fast.chat_template = chat_template
    return fast


def tiny_model(
    path: str | Path,
    *,
    vocab: int = 384,
    layers: int = 2,
    hidden: int = 64,
    seed: int = 0,
    tied: bool = True,
    max_length: int = 512,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """Write model and tokenizer to `path` (made when missing) and return it. float32 safetensors; heads of 32, vLLM's smallest on a CPU."""
    path = Path(path)
    tokenizer = tiny_tokenizer(vocab, chat_template=chat_template)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=max(1, hidden // 64),
        head_dim=32,
        max_position_embeddings=max_length,
        tie_word_embeddings=tied,
        initializer_range=0.2,  # ten times the usual: next-token distributions are far from uniform, so greedy choices are not near-ties
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
