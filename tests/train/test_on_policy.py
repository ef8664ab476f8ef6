"""On-policy distillation: the loss against TRL's and torch's own, the step however it is cut, a student that approaches its teacher, and
a run that stops and goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.errors import R1Error
from r1cli.row import Row
from r1cli.train.batches import Sample, micro_batches, packed_rows
from r1cli.train.checkpoints import load_state, save_state
from r1cli.train.distil_loss import reverse_kl_loss
from r1cli.train.model import frozen, load_policy
from r1cli.train.on_policy import OnPolicyConfig, OnPolicyHooks, ReverseKl, surplus, train_on_policy
from r1cli.train.optimiser import OptimiserConfig, build_optimiser
from r1cli.train.update import measure, update
from tests.train.toy import PAD, group_samples, largest_difference, plain_logprobs, weights

# TRL 1.16.0, experimental.gkd.GKDTrainer.generalized_jsd_loss(student, teacher, labels=zeros, beta=1.0): its value and its gradient.
STUDENT = [[1.0, 0.5, -0.5, 2.0], [0.0, -1.0, 0.3, 0.7], [2.0, 1.0, 0.0, -1.0]]
TEACHER = [[0.2, 1.5, 0.0, 1.0], [1.0, 0.0, -0.3, 0.1], [0.5, 0.5, 0.5, 0.5]]
TRL_LOSS = 0.36077702045440674
TRL_GRADIENT = [
    [0.01350766234099865, -0.07182543724775314, -0.018246140331029892, 0.07656392455101013],
    [-0.08013247698545456, -0.029479091987013817, 0.04398846998810768, 0.06562307476997375],
    [0.10889605432748795, -0.03890032693743706, -0.04335873946547508, -0.026636991649866104],
]


@pytest.mark.parametrize("baseline", [0.0, 0.36, -2.0])
def test_over_all_tokens_the_student_could_draw_it_is_trls_reverse_kl(baseline: float) -> None:
    """The expectation is taken exactly: every token of the vocabulary, weighed by the student's probability, at each of three positions."""
    logits_TV = torch.tensor(STUDENT, requires_grad=True)
    student_TV, teacher_TV = logits_TV.log_softmax(-1), torch.tensor(TEACHER).log_softmax(-1)
    chance_TV = student_TV.detach().exp() / len(STUDENT)
    loss_N, kl_N = reverse_kl_loss(student_TV.flatten(), teacher_TV.flatten(), baseline)
    (loss_N * chance_TV.flatten()).sum().backward()
    assert float((kl_N * chance_TV.flatten()).sum()) == pytest.approx(TRL_LOSS, abs=1e-6)
    assert logits_TV.grad is not None
    torch.testing.assert_close(logits_TV.grad, torch.tensor(TRL_GRADIENT), atol=1e-6, rtol=0)


def test_it_is_torchs_kl_divergence_for_any_pair_of_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits_V, teacher_V = torch.randn(2, 50, generator=generator, dtype=torch.float64)
        ours, theirs = logits_V.clone().requires_grad_(), logits_V.clone().requires_grad_()
        student_V, wanted_V = ours.log_softmax(-1), teacher_V.log_softmax(-1)
        loss_V, _ = reverse_kl_loss(student_V, wanted_V, 1.5)
        (loss_V * student_V.detach().exp()).sum().backward()
        torch.nn.functional.kl_div(wanted_V, theirs.log_softmax(-1), log_target=True, reduction="sum").backward()
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_by_hand() -> None:
    """A student at 1/2 and a teacher at 1/4: d = log 2."""
    student = torch.tensor([0.5]).log().requires_grad_()
    loss, kl = reverse_kl_loss(student, torch.tensor([0.25]).log())
    loss.sum().backward()
    assert float(kl) == pytest.approx(0.6931472)
    assert student.grad is not None and float(student.grad) == pytest.approx(0.6931472)
    assert not kl.requires_grad
    centred, _ = reverse_kl_loss(student, torch.tensor([0.25]).log(), 0.36)
    assert centred.item() == pytest.approx((0.6931472 - 0.36) * -0.6931472)
    assert float(reverse_kl_loss(student.detach(), torch.tensor([0.5]).log())[0]) == 0.0  # the same: nothing to learn


def test_without_a_baseline_the_gradient_is_the_same_on_average_and_far_noisier() -> None:
    generator = torch.Generator().manual_seed(1)
    logits_V, teacher_V = torch.randn(2, 20, generator=generator).log_softmax(-1) * 2
    student_V, teacher_V = logits_V.log_softmax(-1), teacher_V.log_softmax(-1) - 3.0  # far apart: d is large at every token
    drawn = torch.multinomial(student_V.exp(), 20000, replacement=True, generator=generator)
    score = torch.nn.functional.one_hot(drawn, 20) - student_V.exp()  # grad log student

    def gradients(baseline: float) -> torch.Tensor:
        """Of each token's loss with respect to the logits."""
        chosen_N = student_V[drawn].requires_grad_()
        loss_N, _ = reverse_kl_loss(chosen_N, teacher_V[drawn], baseline)
        return score * torch.autograd.grad(loss_N.sum(), chosen_N)[0][:, None]

    plain, centred = gradients(0.0), gradients(float((student_V - teacher_V)[drawn].mean()))
    assert centred.var(0).sum() < plain.var(0).sum() / 3
    assert (plain.mean(0) - centred.mean(0)).abs().max() < 5 * float((plain.var(0).max() / 20000) ** 0.5)


def objective(samples: list[Sample], teacher: dict[int, torch.Tensor]) -> ReverseKl:
    tokens = sum(len(sample.completion_ids) for sample in samples)
    return ReverseKl(teacher, tokens, surplus(samples, teacher) / tokens, 2.0)


def test_the_step_is_the_same_however_it_is_cut(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    samples = group_samples(3, 4)
    teacher = frozen(new_policy(temperature=2.0))
    rate = OptimiserConfig(lr=1.0, max_grad_norm=0.0)
    found = []
    for tokens in (4096, 30):
        policy = new_policy()
        batches = micro_batches(packed_rows(samples, 60), tokens, PAD)
        scored = measure(accelerator, teacher, batches)
        rule = torch.optim.SGD(policy.parameters(), lr=1.0)
        figures = update(accelerator, policy, rule, batches, objective(samples, scored), lr=1.0, config=rate, where="step 1")
        found.append((len(batches), weights(policy), figures))
    assert found[0][0] < found[1][0]
    assert largest_difference(found[0][1], found[1][1]) < 1e-5
    assert found[0][2]["reverse_kl"] == pytest.approx(found[1][2]["reverse_kl"], abs=1e-5)


def test_every_token_weighs_what_the_student_thinks_of_it_against_the_sampler_up_to_the_cap(
    accelerator: Any, new_policy: Callable[..., Any]
) -> None:
    """The sampler found every token e times less likely: the weight would be 2.72."""
    student, teacher = new_policy(), frozen(new_policy(temperature=2.0))
    samples, apart = group_samples(groups=2, size=2), list[float]()
    for one in samples:
        own, other = (plain_logprobs(student.model, one, temperature)[0].detach() for temperature in (1.0, 2.0))
        one.sampler_logprobs = (own - 1).tolist()
        apart += (own - other).tolist()
    found: list[dict[str, Any]] = []
    for cap in (2.0, 1.5, 3.0):
        config = OnPolicyConfig(
            steps=1, prompts_per_step=2, microbatch_tokens=40, seed=0, pad_id=PAD, optimiser=OptimiserConfig(lr=0.0), importance_cap=cap
        )
        hooks = OnPolicyHooks(lambda rows, step: samples, lambda: None, found.append, lambda step: None)
        rule = torch.optim.SGD(student.parameters())
        train_on_policy(accelerator, student, teacher, rule, config, prompts=[Row({"id": n, "prompt": ""}) for n in range(2)], hooks=hooks)
    assert [record["importance_weight"] for record in found] == pytest.approx([2.0, 1.5, 2.718282], rel=1e-4)
    kl = sum(apart) / len(apart)
    assert [record["reverse_kl"] for record in found] == pytest.approx([2.0 * kl, 1.5 * kl, 2.718282 * kl], rel=1e-3)


def test_a_student_approaches_its_teacher(accelerator: Any, new_policy: Callable[..., Any], tmp_path: Any) -> None:
    """One token a completion, so that the exact KL is at hand: torch's own, over the whole vocabulary."""
    from tests.tiny import tiny_model

    teacher = frozen(load_policy(str(tiny_model(tmp_path / "teacher", seed=7))))
    student = new_policy()
    generator = torch.Generator().manual_seed(0)
    config = OnPolicyConfig(
        steps=40, prompts_per_step=8, microbatch_tokens=4096, seed=0, pad_id=PAD, optimiser=OptimiserConfig(lr=1e-2, max_grad_norm=1.0)
    )
    prompts = [Row({"id": i, "prompt": str(i)}) for i in range(8)]

    def ids_of(rows: list[Row]) -> torch.Tensor:
        return torch.tensor([[10 + row["id"], 20, 30] for row in rows])

    @torch.no_grad()
    def logprobs(policy: Any, rows: list[Row]) -> torch.Tensor:
        return policy.model(input_ids=ids_of(rows)).logits[:, -1].log_softmax(-1)

    def exact() -> float:
        kl = torch.nn.functional.kl_div(logprobs(teacher, prompts), logprobs(student, prompts), log_target=True, reduction="batchmean")
        return float(kl)

    def sample(rows: list[Row], step: int) -> list[Sample]:
        own = logprobs(student, rows)
        drawn = torch.multinomial(own.exp(), 16, replacement=True, generator=generator)
        groups = zip(ids_of(rows).tolist(), drawn.tolist(), strict=True)
        return [
            Sample(16 * n + k, prompt, [token], sampler_logprobs=[float(own[n, token])])
            for n, (prompt, tokens) in enumerate(groups)
            for k, token in enumerate(tokens)
        ]

    records: list[dict[str, Any]] = []
    saved: list[int] = []
    before = exact()
    train_on_policy(
        accelerator,
        student,
        teacher,
        build_optimiser(student.parameters(), config.optimiser),
        config,
        prompts=prompts,
        hooks=OnPolicyHooks(sample, lambda: None, records.append, saved.append),
    )
    assert records[0]["reverse_kl"] == pytest.approx(before, rel=0.2)  # the estimate is the exact KL, within its noise
    assert exact() < 0.5 * before
    assert saved == [40] and [record["step"] for record in records] == list(range(1, 41))
    assert all("loss" not in record for record in records)


def test_a_number_that_is_no_token_of_the_teachers_is_named(accelerator: Any, new_policy: Callable[..., Any]) -> None:
    student, teacher = new_policy(), new_policy()
    most = teacher.model.get_input_embeddings().weight.shape[0]
    student.model.resize_token_embeddings(most + 8, mean_resizing=False)
    config = OnPolicyConfig(steps=1, prompts_per_step=1, microbatch_tokens=40, seed=0, pad_id=PAD, optimiser=OptimiserConfig(lr=1e-2))
    rule = build_optimiser(student.parameters(), config.optimiser)
    logged: list[Any] = []

    def run(token: int) -> None:
        def sample(rows: list[Row], step: int) -> list[Sample]:
            return [Sample(0, [10, 20], [30, token], sampler_logprobs=[-1.0, -1.0])]

        hooks = OnPolicyHooks(sample, lambda: None, logged.append, logged.append)
        train_on_policy(accelerator, student, teacher, rule, config, prompts=[Row({"id": 0, "prompt": ""})], hooks=hooks)

    with pytest.raises(R1Error, match=f"step 1: the student drew token {most}, .* only {most} rows") as caught:
        run(most)
    assert f"resize_token_embeddings({most})" in str(caught.value.hint) and not logged
    run(most - 1)
    assert logged


STEPS = 4


def stepped(
    accelerator: Any, folder: Path, *, ends_at: int = 0, resume: Path | None = None, checkpoint: Path | None = None, save_every: int = 0
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], list[int], int]:
    """(weights, metrics, saves, steps done) of a run whose completions are drawn from the student as it is then.

    ends_at: at which look it is asked to end (0: never); the sampler ends early too, as a real one does. checkpoint keeps its state.
    """
    student, teacher = load_policy(str(folder)), frozen(load_policy(str(folder), temperature=2.0))
    schedule = OptimiserConfig(lr=1e-2, lr_schedule="cosine", warmup_steps=1)
    config = OnPolicyConfig(
        steps=STEPS, prompts_per_step=2, microbatch_tokens=40, seed=3, pad_id=PAD, optimiser=schedule, save_every=save_every
    )
    rule, start = build_optimiser(student.parameters(), schedule), 0
    if resume is not None:
        student.load_state_dict(torch.load(resume / "weights.pt"))
        start = load_state(rule, resume)
    looks: list[float] = []
    records: list[dict[str, Any]] = []
    saves: list[int] = []

    @torch.no_grad()
    def sample(rows: list[Row], step: int) -> list[Sample]:
        if ends_at and len(looks) + 1 == ends_at:
            return []
        generator = torch.Generator().manual_seed(step)
        made = []
        for index, row in enumerate(rows):
            ids = [10 + row["id"], 20, 30]
            logprobs_V = student.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            token = int(torch.multinomial(logprobs_V.exp(), 1, generator=generator))
            made.append(Sample(index, ids, [token], sampler_logprobs=[float(logprobs_V[token])]))
        return made

    def stopping(seconds: float) -> bool:
        looks.append(seconds)
        return len(looks) == ends_at

    def save(steps: int) -> None:
        saves.append(steps)
        if checkpoint is not None:
            torch.save(student.state_dict(), checkpoint / "weights.pt")
            save_state(accelerator, rule, checkpoint, steps)

    hooks = OnPolicyHooks(sample, lambda: None, records.append, save, stopping=stopping)
    prompts = [Row({"id": number, "prompt": ""}) for number in range(5)]
    done = train_on_policy(accelerator, student, teacher, rule, config, prompts=prompts, hooks=hooks, start_step=start)
    return weights(student), [{name: value for name, value in record.items() if "second" not in name} for record in records], saves, done


@pytest.mark.parametrize("save_every", [0, 1])
@pytest.mark.parametrize("ends_at", range(1, 2 * STEPS + 1))
def test_a_run_that_is_asked_to_end_goes_on_to_the_same_numbers(
    accelerator: Any, tiny: Path, tmp_path: Path, ends_at: int, save_every: int
) -> None:
    """Asked at every place where it looks: before a step, and when the step is sampled, which is thrown away then."""
    straight, wanted, saves, done = stepped(accelerator, tiny)
    assert saves == [STEPS] and done == STEPS and largest_difference(straight, weights(load_policy(str(tiny)))) > 1e-3
    _, before, saves, done = stepped(accelerator, tiny, ends_at=ends_at, checkpoint=tmp_path, save_every=save_every)
    assert done == len(before) == (ends_at - 1) // 2
    assert saves == (list(range(1, done + 1)) if save_every else [done][: done > 0])  # once each: nothing new is saved a second time
    resumed, after, saves, done = stepped(accelerator, tiny, resume=tmp_path if saves else None)
    assert saves == [STEPS] and done == STEPS
    assert [*before, *after] == wanted and largest_difference(straight, resumed) == 0.0


def test_a_time_limit_must_leave_room_for_the_longest_step_and_once_it_is_sampled_for_the_longest_update(
    accelerator: Any, new_policy: Callable[..., Any]
) -> None:
    asked: list[float] = []
    records: list[dict[str, Any]] = []
    config = OnPolicyConfig(steps=3, prompts_per_step=2, microbatch_tokens=40, seed=0, pad_id=PAD, optimiser=OptimiserConfig(lr=0.0))
    samples = group_samples(groups=2, size=2)

    def sample(rows: list[Row], step: int) -> list[Sample]:
        time.sleep(0.5)
        return samples

    def stopping(seconds: float) -> bool:
        asked.append(seconds)
        return False

    hooks = OnPolicyHooks(sample, lambda: None, records.append, lambda step: None, stopping=stopping)
    student, teacher, prompts = new_policy(), frozen(new_policy(temperature=2.0)), [Row({"id": n, "prompt": ""}) for n in range(2)]
    train_on_policy(accelerator, student, teacher, torch.optim.SGD(student.parameters()), config, prompts=prompts, hooks=hooks)
    before, sampled = asked[::2], asked[1::2]
    assert before[0] == sampled[0] == 0.0 and len(asked) == 6
    for step in (1, 2):
        assert before[step] >= max(record["seconds"] for record in records[:step])
        assert 0 < sampled[step] < before[step] - 0.4
