"""Weights between trainer and sampler, by hand."""

import math

import pytest
import torch
from torch import Tensor

from r1cli.train.grpo import token_means
from r1cli.train.importance import bucket_names, importance_weights, mismatch_figures, mismatch_record

SEQUENCE = torch.tensor([0, 1, 1, 1])
RATIO = torch.tensor([4.0, 0.5, 2.0, 8.0])  # of sequence 1: product 8, geometric mean 2


def weights(**how: object) -> list[float]:
    old, sampler = torch.log(RATIO * 0.1), torch.full((4,), math.log(0.1))
    return importance_weights(old, sampler, SEQUENCE, 2, **how).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("level", "rule", "floor", "cap", "expected"),
    [
        ("token", "truncate", 0.0, 3.0, [3.0, 0.5, 2.0, 3.0]),
        ("token", "truncate", 1.0, 3.0, [3.0, 1.0, 2.0, 3.0]),
        ("token", "mask", 1.0, 5.0, [4.0, 0.0, 2.0, 0.0]),
        ("token", "mask", 1.0, 0.0, [4.0, 0.0, 2.0, 8.0]),  # no cap
        ("geometric", "truncate", 0.0, 3.0, [3.0, 2.0, 2.0, 2.0]),
        ("geometric", "mask", 0.0, 3.0, [0.0, 2.0, 2.0, 2.0]),
        ("sequence", "truncate", 0.0, 5.0, [4.0, 5.0, 5.0, 5.0]),
        ("sequence", "mask", 0.0, 5.0, [4.0, 0.0, 0.0, 0.0]),
        ("sequence", "truncate", 0.0, 0.0, [1.0, 1.0, 1.0, 1.0]),  # no bound: off
    ],
)
def test_levels_and_rules(level: str, rule: str, floor: float, cap: float, expected: list[float]) -> None:
    assert weights(level=level, rule=rule, floor=floor, cap=cap) == pytest.approx(expected, rel=1e-5)


def test_an_impossible_product_is_masked_and_not_nan() -> None:
    old, sampler = torch.zeros(300), torch.full((300,), -5.0)  # e^1500
    found = importance_weights(old, sampler, torch.zeros(300, dtype=torch.long), 1, level="sequence", rule="mask", cap=2.0)
    assert found.tolist() == [0.0] * 300


def test_no_gradient_runs_through_the_weight() -> None:
    old = torch.zeros(4, requires_grad=True)
    assert not importance_weights(old, torch.ones(4), SEQUENCE, 2, cap=2.0).requires_grad


def test_figures_by_length() -> None:
    """Sequence 0 has 100 tokens, sequence 1 has 5,000; each stands here with one token."""
    old, sampler = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -2.0])
    share, lengths = torch.tensor([0.25, 0.75]), torch.tensor([100, 5000])
    figures = mismatch_figures(old, sampler, torch.tensor([2.0, 1.0]), share, lengths, torch.tensor([0, 1]))
    record = mismatch_record({name: float(value) for name, value in figures.items()})
    divergence = math.exp(0.5) - 1 - 0.5  # the sampler's tokens: r = old / sampler, r - 1 - log r
    assert record == pytest.approx(
        {
            "sampler_mismatch": 0.25 * divergence,
            "importance_weight": 1.25,
            "sampler_mismatch/le_256": divergence,
            "importance_weight/le_256": 2.0,
            "sampler_mismatch/le_16384": 0.0,
            "importance_weight/le_16384": 1.0,
        }
    )


def test_the_divergence_is_that_of_the_sampler_from_the_trainer() -> None:
    """Its mean over the sampler's own choices is KL(sampler || trainer), exactly."""
    torch.manual_seed(1)
    sampler_V, old_V = torch.randn(9).log_softmax(0), torch.randn(9).log_softmax(0)
    exact = float((sampler_V.exp() * (sampler_V - old_V)).sum())
    lengths, sequence = torch.full((9,), 10), torch.arange(9)
    figures: dict[str, Tensor] = mismatch_figures(old_V, sampler_V, torch.ones(9), sampler_V.exp(), lengths, sequence)
    assert float(figures["sampler_mismatch"]) == pytest.approx(exact, rel=1e-5)


def test_bucket_names() -> None:
    assert bucket_names() == ["le_256", "le_1024", "le_4096", "le_16384", "gt_16384"]


def test_silent_tokens_do_not_change_the_mean_of_a_bucket() -> None:
    """Half of the step's tokens take part, all of them of short completions, each with the weight 1: the mean is 1 everywhere."""
    figures = {"trained_share": 0.5, "importance_weight": 0.5, "sampler_mismatch": 0.0}
    figures |= {"share/le_256": 0.5, "importance_weight/le_256": 0.5, "sampler_mismatch/le_256": 0.0}
    record = mismatch_record(token_means(figures))
    assert record["importance_weight"] == record["importance_weight/le_256"] == 1.0
