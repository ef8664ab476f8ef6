"""What `r1 grpo` makes of its flags before it trains: the clip and the advantage of the method that a loss is named after, and a reference
where there is a KL."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest

from r1cli.commands import grpo, grpo_run, training
from r1cli.errors import R1Error
from r1cli.grpo_settings import LOSSES, GrpoSettings, of_loss
from r1cli.guard import Context
from r1cli.report.console import Console
from r1cli.shared_settings import Changing
from r1cli.train import losses
from r1cli.train.grpo_config import Prompts
from tests.train.toy import grpo_config

NAMES = ("clip_low", "clip_high", "advantage")


def found(sources: dict[str, str] | None = None, **values: Any) -> tuple[Any, ...]:
    settings, _ = of_loss(GrpoSettings(model="m", out="o", inputs=[], **values), sources or {})
    return tuple(getattr(settings, name) for name in NAMES)


def test_gspo_and_dr_grpo_are_those_of_their_papers_and_the_others_are_left_alone() -> None:
    assert found(loss="gspo") == (3e-4, 4e-4, "group")
    assert found(loss="dr_grpo") == (0.2, None, "mean")
    assert {found(loss=loss) for loss in LOSSES if loss not in ("gspo", "dr_grpo")} == {(0.2, None, "group")}


def test_the_numbers_of_a_preset_are_for_its_own_loss() -> None:
    """`--preset r1-zero --loss dr_grpo`, `--preset dapo --loss gspo`: the method's own, unless somebody gave others."""
    preset = {"loss": "preset", "clip_low": "preset", "clip_high": "preset", "advantage": "preset"}
    clips = {"clip_low": 0.2, "clip_high": 0.28}
    assert found({**preset, "loss": "flag"}, loss="gspo", **clips) == (3e-4, 4e-4, "group")
    assert found({**preset, "loss": "config"}, loss="dr_grpo", **clips) == (0.2, 0.28, "mean")
    assert found({**preset, "loss": "flag", "advantage": "env"}, loss="dr_grpo", **clips) == (0.2, 0.28, "group")
    assert found(preset, loss="gspo", **clips) == (0.2, 0.28, "group")  # a preset that says both means both


def test_the_flag_offers_the_losses_that_there_are() -> None:
    """Two lists: the flags must not import torch."""
    assert LOSSES == losses.LOSSES


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "vllm", "url": ["http://127.0.0.1:8000/v1"]}, "--engine vllm draws in this process"),
        ({"engine": "server"}, "--engine server needs the address"),
        ({"rollout_lag": 1, "importance_cap": 0.0}, "--rollout-lag 1 needs the importance weights"),
        ({"num_processes": 64, "prompts_per_step": 4}, "64 processes cannot share 4 prompts a step"),
        ({"rollout_lag": 1, "engine_sleep": True}, "--rollout-lag 1 samples during the update, and --engine-sleep"),
        ({"importance_cap": 0.5}, "--importance-cap 0.5 leaves out the weight 1, which every token has where sampler and trainer agree"),
        ({"importance_floor": 3.0, "importance_cap": 0.0}, "--importance-floor 3 leaves out the weight 1"),
        (
            {"rewards": "accuracy,length:max=64", "dynamic_sampling": "length"},
            "--dynamic-sampling length cannot tell right from wrong: right is a score of 1, and `length` does not go up to 1",
        ),
        ({"rewards": "accuracy,overlong:max=64", "dynamic_sampling": "overlong"}, "--dynamic-sampling overlong cannot tell right"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(R1Error, match=said) as caught:
        grpo.check_flags(GrpoSettings(model="m", out="o", inputs=[], **given), {})
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "given",
    [
        {"importance_cap": 1.0, "importance_floor": 0.5},
        {"importance_cap": 0.0, "importance_floor": 1.0},
        {"rewards": "accuracy,format,language", "dynamic_sampling": "format"},
        {"rewards": "mine.py:graded", "dynamic_sampling": "graded"},  # what it gives is known once it is asked
    ],
)
def test_what_can_work_is_not_refused(given: dict[str, Any]) -> None:
    grpo.check_flags(GrpoSettings(model="m", out="o", inputs=[], **given), {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 100}, "a rollout: 32 prompts, 512 completions of at most 1024 tokens, for 1 steps"),
        ({"steps": 100, "updates_per_rollout": 16}, "a rollout: 512 prompts, 8192 completions of at most 1024 tokens, for 16 steps"),
        ({"steps": 4, "updates_per_rollout": 16}, "a rollout: 128 prompts, 2048 completions of at most 1024 tokens, for 4 steps"),
        (
            {"steps": 5, "updates_per_rollout": 16, "epochs_per_rollout": 2},
            "a rollout: 96 prompts, 1536 completions of at most 1024 tokens, for 5 steps",
        ),
    ],
)
def test_a_plan_tells_the_rollout_that_is_drawn(given: dict[str, Any], said: str) -> None:
    settings = GrpoSettings(
        model="m", out="o", inputs=[], prompts_per_step=32, group_size=16, max_completion_length=Changing("1024"), **given
    )
    assert said in grpo.plan(settings, "m", [(0, [])], None, 9)
    config = grpo_config(**given, prompts_per_step=32)
    assert said.startswith(f"a rollout: {32 * config.parts(0)} prompts")


def test_k2_is_not_corrected() -> None:
    wrong = GrpoSettings(model="m", out="o", inputs=[], kl="k2", kl_correction=True)
    with pytest.raises(R1Error, match="--kl k2 has the gradient of the reverse KL already") as caught:
        grpo.check_flags(wrong, {})
    assert caught.value.code == 2 and "--kl k3" in (caught.value.hint or "")
    for kl in ("k1", "k3"):
        grpo.check_flags(dataclasses.replace(wrong, kl=kl), {})
    grpo.check_flags(dataclasses.replace(wrong, kl_correction=False), {})
    grpo.check_flags(dataclasses.replace(wrong, beta=0.0), {})  # there is no KL at all


@pytest.mark.parametrize("layer", ["flag", "env", "config", "preset"])
def test_what_somebody_gave_stays(layer: str) -> None:
    assert found({"advantage": layer}, loss="dr_grpo", advantage="group") == (0.2, None, "group")
    assert found({"clip_low": layer}, loss="gspo", clip_low=0.2) == (0.2, None, "group")  # above as below, as with any loss
    assert found({"clip_high": layer}, loss="gspo", clip_high=1e-3) == (3e-4, 1e-3, "group")
    assert found({"clip_low": "default"}, loss="gspo") == (3e-4, 4e-4, "group")


def test_a_run_is_made_with_them_and_says_so(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `train` is given is what config.json gets."""
    (tmp_path / "prompts.jsonl").write_text('{"id": 1, "prompt": "What is 1 + 1?"}\n')
    trained: list[GrpoSettings] = []
    monkeypatch.setattr(grpo_run, "train", lambda settings, *rest: trained.append(settings))
    values: dict[str, Any] = {"model": str(tiny), "out": str(tmp_path / "run"), "inputs": [str(tmp_path / "prompts.jsonl")]}
    values |= {"rewards": "language", "max_completion_length": 16, "loss": "gspo"}
    heard = io.StringIO()
    grpo.run(GrpoSettings(**values), Context("grpo", {}, Console(stream=heard)))
    assert (trained[0].clip_low, trained[0].clip_high) == (3e-4, 4e-4)
    assert "--loss gspo takes --clip-low 0.0003 --clip-high 0.0004, as its paper does" in heard.getvalue()
    with pytest.raises(R1Error, match=r"--clip-cap 1.0001 is not above 1 \+ --clip-high 0.0004"):
        grpo.run(GrpoSettings(**values, clip_cap=1.0001), Context("grpo", {"clip_cap": "flag"}, Console(stream=heard)))


@pytest.mark.parametrize("beta", [0.0, 0.01])
def test_a_reference_is_loaded_only_for_a_kl(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beta: float) -> None:
    """The real `Training`, up to the sampler."""

    class Sampled(Exception):
        pass

    def stop(*given: Any, **named: Any) -> None:
        raise Sampled

    loaded: list[str] = []
    plain = training.load_reference

    def load(folder: str, **named: Any) -> Any:
        loaded.append(folder)
        return plain(folder, **named)

    monkeypatch.setattr(training, "load_reference", load)
    monkeypatch.setattr(grpo_run, "open_sampler", stop)
    settings = GrpoSettings(model=str(tiny), out=str(tmp_path / "run"), inputs=[], beta=beta, dtype="float32", rewards="language")
    with pytest.raises(Sampled):
        grpo_run.train(settings, Context("grpo", {}, Console(quiet=2)), str(tiny), Prompts([(0, [])]), [], [], 0.0)
    assert loaded == ([str(tiny)] if beta else [])


@pytest.mark.parametrize(
    ("rewards", "limit", "said"),
    [
        ("accuracy,overlong:max=20480:cache=4096", 4096, ["`overlong` punishes from 16384 tokens on, and --max-completion-length is 4096"]),
        ("accuracy,overlong:max=100", 80, ["`overlong` punishes from 80 tokens on"]),  # a cache of a fifth
        ("accuracy,overlong:max=100", 81, []),
        ("accuracy,overlong:max=32768", "32768,65536@8200", ["`overlong` has max=32768, and --max-completion-length is 65536"]),
        ("accuracy,brevity:max=64,length:max=128", 128, ["`brevity` has max=64"]),
        ("accuracy,format", 4, []),
    ],
)
def test_a_length_reward_beside_another_limit_is_said(rewards: str, limit: Any, said: list[str]) -> None:
    settings = GrpoSettings(model="m", out="o", inputs=[], rewards=rewards, max_completion_length=limit)
    found = grpo.odd_lengths(settings)
    assert len(found) == len(said) and all(text in whole for text, whole in zip(said, found, strict=True))
