"""The wiring of `r1 grpo`: what is saved of a rollout that is given up, which prompts an engine has room for, and which rows a model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from r1cli.commands import grpo_run, sft_run
from r1cli.commands.grpo_run import Wiring, _fitting
from r1cli.commands.on_policy_run import on_policy_config
from r1cli.commands.rm_run import rm_config
from r1cli.commands.stopping import Stopper
from r1cli.engines.protocol import SamplingParams
from r1cli.errors import R1Error
from r1cli.rm_settings import RmSettings
from r1cli.row import Row
from r1cli.settings import DistillSettings, GrpoSettings, SftSettings
from r1cli.shared_settings import Changing
from r1cli.text.prompts import PromptRenderer
from r1cli.train.grpo_config import Prompts
from r1cli.train.progress import Progress, RolloutBatch
from r1cli.train.rollout import Draw

SHORT, LONG = Row({"id": "short", "prompt": "1 + 1?"}), Row({"id": "long", "prompt": "1 + 1? " * 30})


class Saved:
    """A run directory that remembers up to which step it was told to save, and whether that was the last."""

    def __init__(self) -> None:
        self.accelerator = SimpleNamespace(process_index=0, num_processes=1)
        self.settings = GrpoSettings(inputs=[], model="m", out="o", steps=4)
        self.calls: list[tuple[int, bool]] = []

    def save(self, step: int, total: int, extra: Any) -> None:
        self.calls.append((step, step == total))


def wiring(memory: dict[str, list[float]], progress: Progress) -> tuple[Wiring, Saved]:
    training, bar = Saved(), SimpleNamespace(advance=lambda steps: None, restart=lambda: None)
    scorer = SimpleNamespace(memory=lambda: {name: list(values) for name, values in memory.items()})
    return Wiring(training, None, scorer, Stopper(), bar, None, progress), training  # type: ignore[arg-type]


def test_what_half_a_rollout_taught_a_running_normalisation_is_not_saved() -> None:
    memory, progress = {"running helpful": [4.0, 1.0, 2.0]}, Progress()
    wired, _ = wiring(memory, progress)
    memory["running helpful"] = [8.0, 1.5, 2.5]  # of a rollout that is given up before it is whole
    wired.save(progress)
    assert progress.memory == {"running helpful": [4.0, 1.0, 2.0]}
    progress.batch = RolloutBatch(0, 1, 8, [])  # it is whole, and in the checkpoint
    wired.save(progress)
    assert progress.memory == {"running helpful": [8.0, 1.5, 2.5]}


def test_what_was_measured_before_step_1_is_in_the_first_line_of_a_later_start() -> None:
    """The first one ended with its first rollout drawn, before there was a line."""
    memory = {"held-out accuracy": [0.25]}
    progress = Progress(batch=RolloutBatch(0, 1, 8, []), memory=dict(memory))
    wired, _ = wiring(memory, progress)
    wired.sampler = SimpleNamespace(engine=SimpleNamespace(name="transformers"))  # type: ignore[assignment]
    wired.begin(progress)
    assert wired._at_start == {"held_out/accuracy_before": 0.25}
    logged = Progress(step=2, memory={"held-out accuracy": [0.5]})  # it has its lines, and the alarms took the value over
    wired, _ = wiring(memory, logged)
    wired.sampler = SimpleNamespace(engine=SimpleNamespace(name="transformers"))  # type: ignore[assignment]
    wired.begin(logged)
    assert wired._at_start == {}


def test_a_run_whose_last_line_is_still_to_be_written_is_not_done() -> None:
    progress = Progress(step=4, batch=RolloutBatch(2, 2, 8, [], done=2))
    wired, training = wiring({}, progress)
    wired.save(progress)
    progress.batch = None
    wired.save(progress)
    assert training.calls == [(4, False), (4, True)]


def test_the_engine_rests_and_takes_weights_over_and_its_thread_is_given_up() -> None:
    made: Any = wiring({}, Progress())
    (wired, training), done = made, list[Any]()
    training.context, training.weights = SimpleNamespace(console=SimpleNamespace(warn=None)), lambda: "weights"
    wired.scorer.score = None
    wired.sampler = SimpleNamespace(engine=SimpleNamespace(rest=lambda: done.append("rests"), load_weights=done.append))
    hooks = wired.hooks()
    hooks.rest()
    hooks.sync()
    assert done == ["rests", "weights"] and not wired.stopper.wanted()
    hooks.abandon()
    assert wired.stopper.wanted()


@pytest.mark.parametrize("command", [grpo_run, sft_run])
@pytest.mark.parametrize("shares", [True, False])
def test_rows_are_as_long_as_the_model_lets_several_sequences_share(command: Any, shares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose layers have windows of their own takes a row for each sequence; one whose rotations depend on a batch's longest
    sequence, a micro-batch for each that is long."""

    class Configured(Exception):
        pass

    name = "grpo_config" if command is grpo_run else "sft_config"
    make = getattr(command, name)

    def configured(settings: Any, pad_id: int, *policy: Any) -> Any:
        made = make(settings, pad_id, *policy)
        if policy:
            raise Configured(made.pack_length, made.alone_beyond)
        return made

    policy = SimpleNamespace(row_length=lambda wanted: wanted * shares, alone_beyond=64)
    monkeypatch.setattr(command, "Training", lambda *given, **named: SimpleNamespace(done=False, pad_id=0, own_policy=policy))
    monkeypatch.setattr(command, name, configured)
    context: Any = SimpleNamespace(console=None, sources={})
    with pytest.raises(Configured) as found:
        if command is grpo_run:
            grpo_run.train(GrpoSettings(inputs=[], model="m", out="o", steps=4), context, "m", Prompts([(0, [])]), [], [], 0.0)
        else:
            monkeypatch.setattr(sft_run, "checked", lambda *given: [])
            reader: Any = SimpleNamespace(bad=0)
            sft_run.train(SftSettings(inputs=[], model="m", out="o"), context, "m", [], reader, 0.0)
    assert found.value.args == (command.PACK_LENGTH * shares, 64)


def test_the_sides_of_a_pair_share_a_row_where_that_changes_nothing() -> None:
    settings = RmSettings(inputs=[], model="m", out="o")
    for length, alone_beyond, shared in ((2048, None, True), (0, None, False), (64, 64, False)):
        policy = SimpleNamespace(row_length=lambda _, length=length: length, alone_beyond=alone_beyond)
        made = rm_config(settings, 0, policy)
        assert (made.shared, made.alone_beyond) == (shared, alone_beyond)
    assert rm_config(settings, 0).shared


def test_teacher_and_student_are_given_the_same_micro_batches() -> None:
    settings = DistillSettings(inputs=[], out="o", student="m", teacher="t", on_policy=True, steps=2)
    policies = [SimpleNamespace(row_length=lambda wanted: wanted, alone_beyond=limit) for limit in (None, 64, 32)]
    made = on_policy_config(settings, 0, [*policies, SimpleNamespace(row_length=lambda wanted: 0, alone_beyond=None)])
    assert (made.pack_length, made.alone_beyond) == (0, 32)
    assert on_policy_config(settings, 0, policies[:1]).alone_beyond is None


def test_prompts_that_the_engine_has_no_room_for_are_left_out_and_counted(tiny: Path) -> None:
    renderer = PromptRenderer(AutoTokenizer.from_pretrained(tiny))
    settings = GrpoSettings(inputs=[], model="m", out="o", max_completion_length=Changing("8,16@4"), max_model_len=512)
    prompts, said = Prompts([(0, [SHORT, LONG]), (3, [SHORT])], [0.5, 0.5]), list[str]()

    def fitting(context: int) -> tuple[Prompts, Any]:
        sampler: Any = SimpleNamespace(renderer=renderer, engine=SimpleNamespace(max_model_len=context))
        return _fitting(prompts, [LONG, SHORT], sampler, settings, said.append)

    assert fitting(512) == (prompts, [LONG, SHORT]) and said == []
    kept, problems = fitting(100)
    assert list(kept.stages) == [(0, [SHORT]), (3, [SHORT])] and kept.shares == [0.5, 0.5] and problems == [SHORT]
    assert said == ["1 prompts left out: longer than what the engine's 100 leave beside --max-completion-length: 84 tokens"] * 2
    with pytest.raises(R1Error, match="2 read, all longer than what the engine's 20 leave"):
        fitting(20)


@pytest.mark.parametrize(("tokens", "logprobs"), [([], [-0.5]), ([7, 8], [-0.5]), ([7], None)])
def test_completions_without_a_log_probability_a_token_are_refused_before_they_are_scored(tokens: list[int], logprobs: Any) -> None:
    """A server that knows no `return_token_ids`, or sends no `logprobs`."""
    drawn = SimpleNamespace(number=0, row=Row({"id": "sum", "sample": 1}), prompt_ids=[5], token_ids=tokens, logprobs=logprobs)
    wired, training = wiring({}, Progress())
    training.settings = wired.settings = GrpoSettings(inputs=[], model="m", out="o", group_size=2)
    good = SimpleNamespace(number=0, row=Row({"id": "sum", "sample": 0}), prompt_ids=[5], token_ids=[7], logprobs=[-0.5])
    completions = (one for one in (good, drawn))
    wired.sampler = SimpleNamespace(params=SamplingParams(max_tokens=8), draw=lambda rows, samples, seed: completions)  # type: ignore[assignment]
    with pytest.raises(R1Error, match="log-probabilities for sample 1 of `sum`: training needs one a token"):
        wired.sample([SHORT], Draw(0, 0, 8))
