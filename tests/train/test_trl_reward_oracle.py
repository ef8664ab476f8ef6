"""TRL 1.16's tokens, rewards, loss and gradient, recorded by tests/oracles/record_trl_reward.py, and ours for the same rows and weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from r1cli.commands.rm_rows import prepared, scoring_tokenizer
from r1cli.rm_settings import RmSettings
from r1cli.row import Row
from r1cli.text.preferences import judged
from r1cli.train.preference import Example, example_batches, loss_of
from r1cli.train.reward_model import RewardModel, scored_ids
from r1cli.train.update import forward
from tests.oracles.problem import fingerprint
from tests.oracles.reward_problem import CASES, MARGIN, Case, small_scorer, tokenizer_of
from tests.train.test_trl_oracle import agree

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "trl_reward.json").read_text("utf-8"))
TOLERANCE = 1e-4


def examples_of(case: Case, folder: Path) -> tuple[list[Example], int]:
    """Our reading of TRL's rows, and the padding token."""
    template = "raw" if "standard" in case.format else "chat"
    settings = RmSettings(inputs=[], out="", model="", template=template)
    tokenizer = scoring_tokenizer(tokenizer_of(case), template, str(folder))
    small_scorer(tokenizer.pad_token_id).config.save_pretrained(folder)
    rows = [judged(Row(row), MARGIN if case.margins else None) for row in case.rows()]
    return prepared(rows, settings, tokenizer, str(folder)).examples, tokenizer.pad_token_id


def rewards_loss_gradient(examples: list[Example], pad_id: int, center: float, tokens: int, shared: bool) -> tuple[list[float], float, Any]:
    model = RewardModel(small_scorer(pad_id))
    loss = loss_of(examples, center, 1.0 / len(examples))
    total, rewards = 0.0, [0.0] * (2 * len(examples))
    for batch in example_batches(examples, range(len(examples)), tokens, pad_id, shared=shared):
        (scores_N,) = forward(model, batch)
        for sample, value in zip(batch.samples, scores_N.tolist(), strict=True):
            rewards[sample.index] = value
        part, _ = loss(batch, scores_N)
        part.backward()
        total += part.item()
    return rewards, total, fingerprint({name: parameter.grad for name, parameter in model.model.named_parameters()})


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_tokens_are_trls(case: Case, tmp_path: Path) -> None:
    examples, pad_id = examples_of(case, tmp_path)
    theirs = [tuple(scored_ids(side, pad_id) for side in pair) for pair in RECORDED["cases"][case.name]["tokens"]]
    assert [example.sides for example in examples] == theirs


@pytest.mark.parametrize("shared", [True, False], ids=["a row a pair", "two rows a pair"])
@pytest.mark.parametrize("tokens", [4096, 1], ids=["one micro-batch", "one pair each"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_rewards_loss_and_gradient_are_trls(case: Case, tokens: int, shared: bool, tmp_path: Path) -> None:
    recorded = RECORDED["cases"][case.name]
    rewards, loss, gradient = rewards_loss_gradient(*examples_of(case, tmp_path), case.center, tokens, shared)
    chosen_first = [*rewards[::2], *rewards[1::2]]
    assert chosen_first == pytest.approx(recorded["rewards"], rel=TOLERANCE, abs=1e-5)
    assert loss == pytest.approx(recorded["loss"], rel=TOLERANCE)
    assert agree(gradient, recorded["gradient"]) < TOLERANCE


@pytest.mark.parametrize("change", [{"center": 0.31}, {"center": 0.0}, {"margins": True}])
def test_a_different_objective_is_not_trls(change: dict[str, Any], tmp_path: Path) -> None:
    """The comparison can fail: each of these moves the gradient by far more than the tolerance."""
    case = next(case for case in CASES if case.name == "center")
    other = dataclasses.replace(case, **change)
    _, _, gradient = rewards_loss_gradient(*examples_of(other, tmp_path), other.center, 4096, True)
    assert agree(gradient, RECORDED["cases"][case.name]["gradient"]) > 10 * TOLERANCE


def test_what_was_recorded_is_what_the_script_would_record() -> None:
    assert set(RECORDED["cases"]) == {case.name for case in CASES}
    assert RECORDED["made_with"]["trl"] == "1.16.0"
