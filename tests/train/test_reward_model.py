"""The reward model against transformers' own classifier, and what cannot become one."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, LlamaConfig

from r1cli.errors import R1Error
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.preference import Example, example_batches
from r1cli.train.reward_model import load_reward_model, scored_ids
from r1cli.train.rm import RmConfig, held_out_figures, score
from tests.train.toy import PAD, tokens

END = 2


def pairs(count: int, seed: int = 0) -> list[Example]:
    """Pairs behind a common prompt, of different lengths."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        prompt = tokens(rng, 2, 9)
        found.append(Example((prompt + tokens(rng, 1, 12), prompt + tokens(rng, 1, 12)), 0.0))
    return found


@pytest.mark.parametrize("pad_id", [PAD, END], ids=["padding of its own", "padding is the end token"])
@pytest.mark.parametrize("shared", [True, False], ids=["a row a pair", "two rows a pair"])
def test_scores_are_those_of_transformers(tiny: Path, accelerator: Any, tmp_path: Path, pad_id: int, shared: bool) -> None:
    model = load_reward_model(str(tiny), pad_id=pad_id, seed=1)
    model.model.save_pretrained(tmp_path)
    whole = [tuple([*side, END] for side in example.sides) for example in pairs(7)]
    examples = [Example(tuple(scored_ids(side, pad_id) for side in sides), 0.0) for sides in whole]
    config = RmConfig(epochs=1, batch_rows=4, microbatch_tokens=60, seed=0, pad_id=pad_id, optimiser=OptimiserConfig(lr=1.0), shared=shared)
    found = [value for row in score(accelerator, model, examples, config) for value in row]
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    sequences = [ids for sides in whole for ids in sides]
    width = max(map(len, sequences))
    padded = torch.tensor([ids + [pad_id] * (width - len(ids)) for ids in sequences])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences])
    expected = theirs(input_ids=padded, attention_mask=mask).logits.squeeze(-1)
    assert found == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_score_is_read_at_the_last_token_that_is_no_padding() -> None:
    assert scored_ids([5, 6, END], PAD) == [5, 6, END]
    assert scored_ids([5, 6, END], END) == [5, 6]
    assert scored_ids([5, END, 6], END) == [5, END, 6]
    assert scored_ids([END, END], END) == [END, END]


def test_the_head_is_drawn_from_the_seed_and_leaves_the_generators_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", on_gpus.append)
    torch.default_generator.manual_seed(7)
    before = torch.get_rng_state()
    one, same, other = (load_reward_model(str(tiny), pad_id=PAD, seed=seed).model.score.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before) and not on_gpus


def test_the_computation_type_does_not_round_the_head(tiny: Path) -> None:
    """In bfloat16 scores between 4 and 8 are 1/32 apart; ties between different texts would be the rule."""
    model = load_reward_model(str(tiny), pad_id=PAD, seed=1)
    [batch] = example_batches(pairs(12), range(12), 4096, PAD, shared=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (scores_N,) = model(batch.input_ids_BT, batch.position_ids_BT, batch.marks_BT, batch.source_N)
    assert scores_N.dtype == torch.float32
    assert not torch.equal(scores_N, scores_N.bfloat16().float())


def test_what_cannot_become_a_reward_model(tmp_path: Path) -> None:
    three = LlamaConfig(num_labels=3, architectures=["LlamaForSequenceClassification"])
    three.save_pretrained(tmp_path / "three")
    with pytest.raises(R1Error, match="is a classifier of 3 labels") as caught:
        load_reward_model(str(tmp_path / "three"), pad_id=PAD)
    assert caught.value.code == 2
    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=16, num_labels=1)
    AutoModelForSequenceClassification.from_config(small).save_pretrained(tmp_path / "bert")
    with pytest.raises(R1Error, match="is not a single layer called `score`"):
        load_reward_model(str(tmp_path / "bert"), pad_id=PAD)


def test_figures_of_held_out_rows() -> None:
    both = held_out_figures([(1.0, 0.0), (0.0, 2.0)], [Example(([1], [2]), 0.0), Example(([1], [2]), 0.0)])
    assert both["held_out_accuracy"] == 0.5
    assert both["held_out_loss"] == pytest.approx((0.3132617 + 2.1269280) / 2)
    one = held_out_figures([(1.0,), (-1.0,)], [Example(([1],), 1.0), Example(([1],), 1.0)])
    assert (one["held_out_accuracy"], one["held_out_loss"]) == (0.5, pytest.approx((0.3132617 + 1.3132617) / 2))
