"""The loop of supervised fine-tuning: memory that runs out, requests to end, alarms that end it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.text.conversation import turns
from r1cli.text.prompts import PromptRenderer
from r1cli.train import update as updates
from r1cli.train.batches import Sample
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.sft import SftConfig, SftHooks, mean_loss, train_sft
from tests.tiny import tiny_tokenizer
from tests.train.toy import PAD, group_samples, largest_difference, plain_logprobs, weights


def run(accelerator: Any, policy: Any, hooks: SftHooks, **changes: Any) -> tuple[int, dict[str, torch.Tensor]]:
    """(steps done, weights) of four steps of two rows; the last sample is held out."""
    samples = group_samples(groups=3, size=3)
    rate = OptimiserConfig(lr=0.05, max_grad_norm=0.0)
    values: dict[str, Any] = {"epochs": 1.0, "batch_rows": 2, "microbatch_tokens": 0, "seed": 1, "pad_id": PAD, "pack_length": 10}
    config = SftConfig(**{**values, "optimiser": rate, "held_out_every": 1, **changes})
    rule = torch.optim.SGD(policy.parameters(), lr=1.0)
    rows = [[sample] for sample in samples[:-1]]
    return train_sft(accelerator, policy, rule, config, rows=rows, hooks=hooks, held_out=samples[-1:]), weights(policy)


def test_out_of_memory_halves_the_micro_batches_and_nothing_else_changes(
    accelerator: Any, new_policy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with room for 70 positions, pretended."""
    roomy: list[dict[str, Any]] = []
    tight: list[dict[str, Any]] = []
    said: list[str] = []
    _, expected = run(accelerator, new_policy(), SftHooks(roomy.append, lambda step: None), batch_rows=6)
    plain, sizes = updates.forward, []

    def forward(policy: Any, batch: Any) -> Any:
        sizes.append(batch.input_ids_BT.numel())
        if sizes[-1] > 70:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.30 GiB")
        return plain(policy, batch)

    monkeypatch.setattr(updates, "forward", forward)
    hooks = SftHooks(tight.append, lambda step: None, said.append)
    _, found = run(accelerator, new_policy(), hooks, batch_rows=6, microbatch_tokens=256)
    assert max(sizes) > 70 and said[0] == "out of memory with micro-batches of 256 tokens: going on with 128 (--microbatch-tokens 128)"
    assert largest_difference(expected, found) < 2e-6
    assert [one["loss"] for one in tight] == pytest.approx([one["loss"] for one in roomy], abs=1e-5)
    assert [one["held_out_loss"] for one in tight] == pytest.approx([one["held_out_loss"] for one in roomy], abs=1e-5)


@pytest.mark.parametrize("save_every", [0, 2])
@pytest.mark.parametrize("asked_at", [0, 1, 2, 3])
def test_asked_to_end_it_saves_what_is_done_once(accelerator: Any, new_policy: Callable[..., Any], save_every: int, asked_at: int) -> None:
    looks: list[float] = []
    records: list[dict[str, Any]] = []
    saved: list[int] = []

    def stopping(seconds: float) -> bool:
        looks.append(seconds)
        return len(looks) > asked_at

    done, _ = run(accelerator, new_policy(), SftHooks(records.append, saved.append, stopping=stopping), save_every=save_every)
    assert done == asked_at == len(records)
    assert saved == sorted({*range(2, done + 1, 2)} if save_every else set()) + ([done] if done and done not in (save_every,) else [])
    assert looks[0] == 0.0 and all(look > 0 for look in looks[1:])  # how long the last step took


def test_what_an_alarm_returns_is_raised_after_saving(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    saved: list[int] = []

    def log(record: dict[str, Any]) -> R1Error | None:
        return R1Error("it diverges") if record["step"] == 3 else None

    with pytest.raises(R1Error, match="it diverges"):
        run(accelerator, new_policy(), SftHooks(log, saved.append))
    assert saved == [3]


def test_fewer_rows_than_a_step_takes_are_passed_over_as_often_as_asked(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    records: list[dict[str, Any]] = []
    done, _ = run(accelerator, new_policy(), SftHooks(records.append, lambda step: None), epochs=3.0, batch_rows=128)
    assert done == 3 and [one["epoch"] for one in records] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("pack_length", [0, 64])
def test_a_row_without_a_prompt_is_learnt_from_its_second_token_on(
    accelerator: Any, new_policy: Callable[..., Any], pack_length: int
) -> None:
    """The tokenizer of the tests writes no BOS, so that the first token of such a row has nothing before it."""
    tokenizer, policy = tiny_tokenizer(), new_policy()
    renderer = PromptRenderer(tokenizer, template="raw")
    rows = [Row({"id": n, "prompt": "", "completion": text}) for n, text in enumerate(["What is 12 + 30?", "step", "a b c d e f"])]
    rows.append(Row({"id": 3, "prompt": "one", "completion": " two"}))
    samples = [Sample(n, *pair) for n, row in enumerate(rows) for pair in turns(row, renderer, tokenizer, tokenizer.eos_token_id)]
    config = SftConfig(
        epochs=1, batch_rows=1, microbatch_tokens=100, seed=0, pad_id=PAD, optimiser=OptimiserConfig(lr=0.0), pack_length=pack_length
    )
    ids = [tokenizer(f"{row['prompt']}{row['completion']}")["input_ids"] + [tokenizer.eos_token_id] for row in rows]
    assert [sample.prompt_ids + sample.completion_ids for sample in samples] == ids
    losses = torch.cat([-plain_logprobs(policy.model, sample)[0].detach() for sample in samples])
    assert len(losses) == sum(map(len, ids)) - 3 - len(samples[3].prompt_ids)
    assert mean_loss(accelerator, policy, samples, config) == pytest.approx(float(losses.mean()), rel=1e-5)
