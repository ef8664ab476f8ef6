"""One optimizer step: broken numbers stop it before the weights move, and a large gradient is scaled down."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from torch import Tensor

from r1cli.errors import R1Error
from r1cli.train import compute_copy
from r1cli.train.batches import MicroBatch, collate, group_rows, micro_batches
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.update import NotFinite, TokenBudget, out_of_memory, update
from tests.train.toy import PAD, group_samples, largest_difference, weights

CONFIG = OptimiserConfig(lr=0.1, weight_decay=0.1)


def batches(count: int) -> list[MicroBatch]:
    return [collate(group_rows(group_samples(groups=1, size=2, seed=seed)), PAD) for seed in range(count)]


def broken_loss(kind: str) -> Callable[[MicroBatch, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]:
    """A loss that is fine for the first micro-batch and broken for the second."""
    seen: list[MicroBatch] = []

    def loss_of(batch: MicroBatch, logprobs_N: Tensor, entropies_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(batch)
        if len(seen) < 2:
            return logprobs_N.sum(), {}
        if kind == "gradient":  # the square root of 0 is 0, and its slope is infinite
            return ((logprobs_N - logprobs_N.detach()) ** 2).sum().sqrt(), {}
        return logprobs_N.sum() * float(kind), {}

    return loss_of


@pytest.mark.parametrize(("kind", "what"), [("nan", "the loss of step 9"), ("inf", "the loss of step 9"), ("gradient", "the gradient of")])
def test_broken_numbers_stop_before_the_weights_move(accelerator: Any, new_policy: Callable[..., Any], kind: str, what: str) -> None:
    policy = new_policy()
    before = weights(policy)
    optimizer = build_optimiser(policy.parameters(), CONFIG)
    with pytest.raises(NotFinite, match=what):
        update(accelerator, policy, optimizer, batches(2), broken_loss(kind), lr=0.1, config=CONFIG, where="step 9")
    assert largest_difference(before, weights(policy)) == 0.0 and not optimizer.state


def test_gradients_are_scaled_to_the_norm_and_the_norm_is_reported(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    moves, norms = [], []
    for limit in (0.0, 0.5):
        policy = new_policy()
        before = weights(policy)
        config = OptimiserConfig(lr=1.0, max_grad_norm=limit)
        rule = torch.optim.SGD(policy.parameters(), lr=9.0)
        figures = update(
            accelerator, policy, rule, batches(2), lambda b, logprobs, e: (logprobs.sum(), {}), lr=1.0, config=config, where=""
        )
        norms.append(figures["grad_norm"])
        moves.append(math.sqrt(sum(float(((before[n] - w) ** 2).sum()) for n, w in weights(policy).items())))
    assert norms[0] == pytest.approx(norms[1]) and norms[0] > 1
    assert moves == pytest.approx([norms[0], 0.5], rel=1e-3)  # the rate given, not the optimizer's own, was used


def test_figures_are_summed_over_micro_batches(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    def two_and_tokens(batch: MicroBatch, logprobs_N: Tensor, entropies_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return logprobs_N.sum() * 0 + 2, {"tokens": torch.tensor(float(len(batch.target_N)))}

    policy = new_policy()
    count = batches(3)
    figures = update(
        accelerator, policy, torch.optim.SGD(policy.parameters(), lr=0.0), count, two_and_tokens, lr=0.0, config=CONFIG, where="step 1"
    )
    assert figures["loss"] == 6.0 and figures["tokens"] == sum(len(batch.target_N) for batch in count)


def test_out_of_memory_halves_the_micro_batches_and_the_step_is_the_same(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    """A machine with room for 120 tokens, pretended: the update that fails half way is made again with smaller micro-batches."""
    rows = group_rows(group_samples(groups=8, size=3))
    tried: list[int] = []
    said: list[str] = []

    def loss_of(batch: MicroBatch, logprobs_N: Tensor, entropies_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if batch.input_ids_BT.numel() > 120:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.30 GiB")
        return logprobs_N.sum(), {}

    ends = []
    for tokens in (400, 50):
        policy = new_policy()
        rule = torch.optim.SGD(policy.parameters(), lr=1.0)
        budget = TokenBudget(accelerator, tokens, said.append)

        def attempt(size: int, policy: Any = policy, rule: Any = rule) -> dict[str, float]:
            tried.append(size)
            config = OptimiserConfig(lr=0.01, max_grad_norm=0.0)
            return update(accelerator, policy, rule, micro_batches(rows, size, PAD), loss_of, lr=0.01, config=config, where="step 1")

        budget.within(attempt)
        ends.append(weights(policy))
    assert tried[:3] == [400, 200, 100] and tried[-1] == 50
    assert said[0].startswith("out of memory with micro-batches of 400 tokens: going on with 200")
    assert largest_difference(*ends) < 2e-6


def test_a_model_that_does_not_fit_at_all_says_so(accelerator: Any) -> None:
    def attempt(tokens: int) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(R1Error, match="out of memory with micro-batches of 64 tokens") as error:
        TokenBudget(accelerator, 256).within(attempt)
    assert "--gradient-checkpointing" in (error.value.hint or "")


@pytest.mark.parametrize("strategy", [DistributedType.FSDP, DistributedType.MULTI_CPU])
def test_what_only_one_of_several_processes_knows_is_not_tried_again(strategy: DistributedType) -> None:
    """Sharded weights, or memory that ran out where the processes did not agree: the optimizer's states, say."""

    def attempt(tokens: int) -> None:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(R1Error) as error:
        TokenBudget(SimpleNamespace(distributed_type=strategy, num_processes=2, device=torch.device("cpu")), 4096).within(attempt)
    assert "--microbatch-tokens 2048" in (error.value.hint or "")


def test_other_errors_are_not_taken_for_memory(accelerator: Any) -> None:
    def attempt(tokens: int) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        TokenBudget(accelerator, 4096).within(attempt)


@pytest.mark.parametrize(("device", "tokens"), [("cpu", 8192), ("cuda", 65536), ("mps", 8192)])
def test_an_automatic_budget_is_that_of_the_device(device: str, tokens: int) -> None:
    assert TokenBudget(SimpleNamespace(num_processes=1, device=torch.device(device)), 0).tokens == tokens
    assert TokenBudget(SimpleNamespace(num_processes=1, device=torch.device(device)), 77).tokens == 77


def test_a_gradient_that_memory_ran_out_for_is_not_added_to_the_next(
    accelerator: Any, new_policy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 a gradient is cast on its way to the float32 weight; there the memory ends, once, and the gradient is left behind."""
    plain, full = compute_copy._hand_over, [True]

    def hand_over(weight: Tensor) -> Callable[[Tensor], None]:
        move = plain(weight)

        def hook(cast: Tensor) -> None:
            if full:
                full.pop()
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.30 GiB")
            move(cast)

        return hook

    monkeypatch.setattr(compute_copy, "_hand_over", hand_over)
    rows = group_rows(group_samples(groups=1, size=3))
    ends = []
    for _ in range(2):
        said: list[str] = []
        policy = new_policy()
        rule = torch.optim.SGD(policy.parameters(), lr=1.0)
        budget = TokenBudget(accelerator, 4096, said.append)

        def attempt(size: int, policy: Any = policy, rule: Any = rule) -> dict[str, float]:
            with torch.autocast("cpu", torch.bfloat16):
                return update(
                    accelerator,
                    policy,
                    rule,
                    micro_batches(rows, size, PAD),
                    lambda b, p, e: (p.sum(), {}),
                    lr=0.01,
                    config=CONFIG,
                    where="",
                )

        budget.within(attempt)
        ends.append((weights(policy), len(said)))
    assert [count for _, count in ends] == [1, 0]
    assert largest_difference(ends[0][0], ends[1][0]) == 0.0


def test_memory_that_runs_out_while_weights_move_ends_the_run(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    """Some weights have moved by then: the same step again would move them twice."""
    policy = new_policy()
    optimizer = build_optimiser(policy.parameters(), CONFIG)
    budget = TokenBudget(accelerator, 4096)

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.32 GiB")

    optimizer.step = full
    with pytest.raises(R1Error, match="out of memory in the optimizer's own step, step 3") as caught:
        budget.within(
            lambda tokens: update(
                accelerator,
                policy,
                optimizer,
                batches(1),
                lambda b, logprobs, e: (logprobs.sum(), {}),
                lr=1.0,
                config=CONFIG,
                where="step 3",
            )
        )
    assert "--gpu-memory" in (caught.value.hint or "") and budget.tokens == 4096


@pytest.mark.parametrize("text", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "can't allocate memory"])
def test_libraries_have_their_own_words_for_memory(text: str) -> None:
    assert out_of_memory(RuntimeError(text)) and not out_of_memory(ValueError(text))


def test_gradients_are_gone_after_a_step(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    """Their memory is the sampler's then."""
    policy = new_policy()
    optimizer = build_optimiser(policy.parameters(), CONFIG)
    update(accelerator, policy, optimizer, batches(1), lambda b, logprobs, e: (logprobs.sum(), {}), lr=1.0, config=CONFIG, where="")
    assert optimizer.state and all(weight.grad is None for weight in policy.parameters())
