"""The loop of supervised fine-tuning: memory that runs out, requests to end, alarms that end it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from r1cli.errors import R1Error
from r1cli.train import update as updates
from r1cli.train.optimiser import OptimiserConfig
from r1cli.train.sft import SftConfig, SftHooks, train_sft
from tests.train.toy import PAD, group_samples, largest_difference, weights


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
