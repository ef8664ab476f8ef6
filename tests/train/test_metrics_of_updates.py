"""The updates on a rollout, and steps of supervised fine-tuning: which completions each takes, at which rate, and what is said of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.row import Row
from r1cli.train import grpo
from r1cli.train.grpo import token_means, train_on
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.progress import Rollout, RolloutBatch
from r1cli.train.rollout import Draw
from r1cli.train.sft import SftConfig, SftHooks, train_sft
from tests.train.runs import grpo_run, toy_sample
from tests.train.toy import PAD, group_samples, grpo_config, plain_logprobs, rollout_batch

COSINE = OptimiserConfig(lr=0.01, lr_schedule="cosine", max_grad_norm=0.0)


def test_token_figures_are_means_over_the_tokens_that_took_part() -> None:
    names = ["entropy", "clip_fraction", "importance_weight", "sampler_mismatch", "kl"]
    found = token_means({**dict.fromkeys(names, 0.2), "trained_share": 0.5, "loss": 0.2, "entropy/le_256": 0.2})
    assert found == {**dict.fromkeys(names, 0.4), "trained_share": 0.5, "loss": 0.2, "entropy/le_256": 0.2}


def test_what_is_not_trained_on_does_not_dilute_the_figures(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    """Half of the completions are silent."""
    policy, samples, chances = new_policy(), group_samples(groups=2, size=2), list[float]()
    samples[1].truncated = False
    for sample in samples:
        logprobs, entropies = plain_logprobs(policy.model, sample)
        sample.sampler_logprobs, sample.advantage = logprobs.tolist(), float(sample.index % 2)
        chances += entropies.tolist() if sample.advantage else []
    config = grpo_config(beta=0.0)
    figures = train_on(accelerator, policy, None, torch.optim.SGD(policy.parameters()), rollout_batch(samples, config), config)
    assert 0.2 < figures["trained_share"] < 0.8
    assert figures["entropy"] == pytest.approx(sum(chances) / len(chances), rel=1e-5)
    assert figures["importance_weight"] == pytest.approx(1.0, rel=1e-5)


def test_every_update_has_its_own_rate_and_what_is_said_is_the_mean_of_all(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    """Four updates on the second half of a run of seven steps, whose cosine falls from 0.01 to 0.001: by 0.0045 after three of six."""
    policy, samples = new_policy(), group_samples(groups=3, size=4)
    for sample in samples:
        sample.advantage, sample.truncated = 1.0 - sample.index % 2 * 2, False
        sample.sampler_logprobs = plain_logprobs(policy.model, sample)[0].tolist()
    config = grpo_config(steps=7, updates_per_rollout=4, beta=0.0, optimiser=COSINE)
    batch = RolloutBatch(3, 4, 16, samples)
    figures = train_on(accelerator, policy, None, torch.optim.SGD(policy.parameters()), batch, config)
    assert [record["lr"] for record in batch.records] == pytest.approx([0.0055, 0.00325, 0.001 + 0.009 * 0.0669873, 0.001])
    assert len({record["entropy"] for record in batch.records}) == 4 == figures["updates"]
    for name in ("lr", "entropy", "loss", "grad_norm", "clip_fraction"):
        assert figures[name] == pytest.approx(sum(record[name] for record in batch.records) / 4), name
    assert figures["sampler_mismatch"] < 1e-6, "the sampler had the weights of before the first update"


def parts_of(accelerator: Any, monkeypatch: pytest.MonkeyPatch, start: int = 0, seed: int = 5, sources: Any = ()) -> list[list[int]]:
    """Numbers of the completions that each update takes: three parts of a rollout of twelve, in each of two epochs."""
    chosen: list[list[int]] = []
    monkeypatch.setattr(grpo, "one_update", lambda *given: chosen.append([sample.index for sample in given[4]]))
    samples = group_samples(groups=3, size=4)
    config = grpo_config(steps=90, updates_per_rollout=3, epochs_per_rollout=2, beta=0.0, seed=seed)
    old = {sample.index: torch.zeros(1) for sample in samples}
    train_on(accelerator, None, None, None, RolloutBatch(start, 3, 16, samples, old=old, sources=list(sources)), config)
    return chosen


def test_a_rollout_is_split_anew_for_every_epoch_every_rollout_and_every_seed(accelerator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, later, other = (parts_of(accelerator, monkeypatch, *at) for at in ((0, 5), (6, 5), (0, 6)))
    epochs = [first[:3], first[3:], later[:3], later[3:], other[:3], other[3:]]
    for parts in epochs:
        assert [len(part) for part in parts] == [4, 4, 4] and {index for part in parts for index in part} == set(range(12))
    assert len({str(sorted(parts)) for parts in epochs}) == 6
    assert first == parts_of(accelerator, monkeypatch, 0, 5), "a resumed run splits as the run before it"


def test_every_update_holds_the_shares_of_the_sources(accelerator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in range(0, 30, 6):
        parts = parts_of(accelerator, monkeypatch, start, sources=[0] * 6 + [1] * 6)
        assert [sum(index < 6 for index in part) for part in parts] == [2] * 6


def test_the_sampler_rests_during_the_updates(accelerator: Any, tiny: Path) -> None:
    calls: list[str] = []

    class Rule(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            calls.append("update")

    def sample(rows: list[Row], draw: Draw) -> list[Rollout]:
        calls.append("sample")
        return toy_sample(rows, draw)

    more = {"sample": sample, "rest": lambda: calls.append("rest"), "sync": lambda: calls.append("sync")}
    grpo_run(accelerator, str(tiny), optimizer=Rule, steps=2, more=more)
    assert calls == ["sample", "rest", "update", "sync"] * 2


def test_a_supervised_step_says_its_rate_and_the_entropy_of_its_tokens(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    """Three steps down a cosine, the first of them on the whole model."""
    policy, samples, records = new_policy(), group_samples(groups=2, size=2), list[dict[str, Any]]()
    entropies = torch.cat([plain_logprobs(policy.model, sample)[1].detach() for sample in samples])
    config = SftConfig(epochs=3, batch_rows=4, microbatch_tokens=40, seed=0, pad_id=PAD, optimiser=COSINE)
    rule = torch.optim.SGD(policy.parameters())
    train_sft(accelerator, policy, rule, config, rows=[[s] for s in samples], hooks=SftHooks(records.append, lambda step: None))
    assert records[0]["entropy"] == pytest.approx(float(entropies.mean()), rel=1e-5)
    assert [record["lr"] for record in records] == pytest.approx([0.01, 0.0055, 0.001])
