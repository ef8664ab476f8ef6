"""Settings: which layer wins, what each layer refuses, and the numbers of the presets."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1cli.config import PRESET_COMMANDS, PRESETS, _parse_toml, preset_names, resolve
from r1cli.errors import R1Error
from r1cli.io.manifest import plain
from r1cli.settings import COMMANDS

GRPO = {"model": "m", "out": "o"}


def refused(command: str, given: dict[str, Any], environ: dict[str, str] | None = None) -> R1Error:
    with pytest.raises(R1Error) as caught:
        resolve(command, given, environ or {})
    assert caught.value.code == 2
    return caught.value


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_higher_layer_wins_and_is_remembered(tmp_path: Path) -> None:
    config = write(tmp_path / "a.toml", "beta = 0.1\n[grpo]\nlr = 3e-1\ngroup_size = 3\nsteps = 3\n")
    environ = {"R1_GRPO_LR": "0.2", "R1_LR": "0.25", "R1_STEPS": "2"}
    resolved = resolve("grpo", {**GRPO, "lr": "0.1", "config": config, "preset": "r1-zero"}, environ)
    settings, sources = resolved.settings, resolved.sources
    assert (settings.lr, sources["lr"]) == (0.1, "flag")
    assert (settings.steps, sources["steps"]) == (2, "env")
    assert (settings.group_size, sources["group_size"]) == (3, "config")
    assert (settings.beta, sources["beta"]) == (0.1, "config")
    assert (settings.updates_per_rollout, sources["updates_per_rollout"]) == (16, "preset")
    assert (settings.weight_decay, sources["weight_decay"]) == (0.0, "default")
    assert set(sources) == set(vars(settings))


def test_the_variable_of_the_command_beats_the_one_for_all() -> None:
    environ = {"R1_GRPO_LR": "0.2", "R1_LR": "0.25"}
    assert resolve("grpo", GRPO, environ).settings.lr == 0.2
    assert resolve("sft", GRPO, environ).settings.lr == 0.25


def test_variables_of_switches_and_lists() -> None:
    environ = {"R1_NO_PROGRESS": "1", "R1_DEBUG": "1", "R1_STOP": '["a", "b,c"]', "R1_GRPO_NO_MASK_TRUNCATED": "0"}
    settings = resolve("grpo", GRPO, environ).settings
    assert (settings.progress, settings.debug, settings.stop, settings.mask_truncated) == (False, True, ["a", "b,c"], True)
    assert resolve("grpo", GRPO, {"R1_STOP": "</answer>"}).settings.stop == ["</answer>"]


def test_a_misspelt_variable_of_the_command_is_refused() -> None:
    error = refused("grpo", GRPO, {"R1_GRPO_GROUP_SIZ": "4"})
    assert error.message == "`R1_GRPO_GROUP_SIZ`: `r1 grpo` has no such setting"
    assert error.hint == "did you mean `R1_GRPO_GROUP_SIZE`?"
    assert refused("grpo", GRPO, {"R1_LR": "fast"}).message == "`R1_LR` must be a number of at least 0, found `fast`"


def test_the_table_of_the_command_beats_the_top_level(tmp_path: Path) -> None:
    config = write(tmp_path / "a.toml", 'model = "top"\nseed = 1\n[grpo]\nmodel = "mine"\nout = "o"\n[sft]\nepochs = 1\n')
    settings = resolve("grpo", {"config": config}, {}).settings
    assert (settings.model, settings.seed) == ("mine", 1)


def test_toml_keys_may_be_spelt_like_flags(tmp_path: Path) -> None:
    assert resolve("grpo", {**GRPO, "config": write(tmp_path / "a.toml", "group-size = 8\n")}, {}).settings.group_size == 8


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[grpo]\ngroup_sise = 8\n", "`{}`: `r1 grpo` has no setting `group_sise`", "did you mean `group_size`?"),
        ("epochs = 8\n", "`{}`: `r1 grpo` has no setting `epochs`", None),
        ("[grpi]\nlr = 8\n", "`{}`: no command is called `grpi`", "did you mean `grpo`?"),
        ("[grpo]\nlr = 'x'\n", "`lr` in `{}` must be a number of at least 0, found `x`", None),
        ("[grpo\n", "`{}` is not valid TOML (Expected ']' at the end of a table declaration (at line 1, column 6))", None),
    ],
)
def test_a_bad_configuration_is_refused(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    config = write(tmp_path / "a.toml", text)
    error = refused("grpo", {**GRPO, "config": config})
    assert error.message == message.format(config)
    assert hint is None or error.hint == hint


def test_an_empty_name_is_refused_wherever_it_comes_from(tmp_path: Path) -> None:
    assert refused("grpo", {**GRPO, "held_out": ""}).message == "`--held-out` is empty"
    assert refused("grpo", GRPO, {"R1_GRPO_HELD_OUT": ""}).message == "`R1_GRPO_HELD_OUT` is empty"
    config = write(tmp_path / "a.toml", 'held_out = ""\n')
    assert refused("grpo", {**GRPO, "config": config}).message == f"`held_out` in `{config}` is empty"
    assert refused("grpo", {**GRPO, "config": ""}).message == "`--config` is empty"
    assert refused("grpo", {**GRPO, "preset": ""}).message == "`--preset` is empty"


def test_a_missing_configuration_and_missing_flags() -> None:
    assert refused("grpo", {**GRPO, "config": "no.toml"}).message == "cannot read the configuration `no.toml` (No such file or directory)"
    assert refused("grpo", {}).message == "`r1 grpo` needs `--out` and `--model`"


def run_config(folder: Path, command: str, **settings: Any) -> str:
    """As `RunDir` writes it."""
    document = {"command": command, "settings": plain(settings), "sources": dict.fromkeys(settings, "flag")}
    return write(folder / "config.json", json.dumps(document))


def test_the_configuration_of_a_run_repeats_it(tmp_path: Path) -> None:
    first = resolve("grpo", {**GRPO, "lr": "0.5", "stop": ["x"], "inputs": ["p.jsonl"]}, {}).settings
    run_config(tmp_path, "grpo", **vars(first))
    again = resolve("grpo", {"config": str(tmp_path)}, {})
    assert again.settings == first
    assert again.sources["lr"] == "config"


def test_what_a_run_took_by_default_gives_way_and_what_r1_filled_in_is_decided_anew(tmp_path: Path) -> None:
    """A run of gspo has its clips in its config.json, and one of an older r1 the defaults of that."""
    run = {**GRPO, "loss": "gspo", "clip_low": 3e-4, "clip_high": 4e-4, "lr": 0.5, "group_size": 6, "beta": 0.25}
    sources = {"loss": "flag", "lr": "flag", "beta": "preset", **dict.fromkeys(("clip_low", "clip_high", "group_size"), "default")}
    write(tmp_path / "config.json", json.dumps({"command": "grpo", "settings": run, "sources": sources}))
    again = resolve("grpo", {"config": str(tmp_path), "loss": "grpo"}, {})
    assert (again.settings.clip_low, again.settings.clip_high, again.settings.loss) == (0.2, None, "grpo")
    assert (again.settings.lr, again.settings.beta, again.settings.group_size) == (0.5, 0.25, 6)
    assert [again.sources[name] for name in ("lr", "beta", "group_size", "clip_low")] == ["config", "config", "default", "default"]
    under = resolve("grpo", {"config": str(tmp_path), "preset": "r1-zero"}, {}).settings
    assert (under.group_size, under.lr, under.beta) == (16, 0.5, 0.25)


def test_a_repeated_run_does_not_force_resume_or_hush_by_itself(tmp_path: Path) -> None:
    first = resolve("grpo", {**GRPO, "force": True, "debug": True, "quiet": 2, "dry_run": True}, {}).settings
    again = resolve("grpo", {"config": run_config(tmp_path, "grpo", **vars(first))}, {}).settings
    assert (again.force, again.debug, again.quiet, again.dry_run) == (False, False, 0, False)


def test_the_configuration_of_another_command_is_refused(tmp_path: Path) -> None:
    config = run_config(tmp_path, "sft", lr=1.0)
    error = refused("grpo", {**GRPO, "config": config})
    assert error.message == f"`{config}` was written by `r1 sft`, not by `r1 grpo`"
    other = write(tmp_path / "other.json", '{"a": 1}')
    assert refused("grpo", {**GRPO, "config": other}).message == f"`{other}` is not the config.json of a run"


# The paper's numbers, typed again from it: (preset, command) -> fields.
RL = {
    "lr": 3e-6,
    "beta": 0.001,
    "group_size": 16,
    "prompts_per_step": 32,
    "updates_per_rollout": 16,
    "epochs_per_rollout": 1,
    "kl": "k3",
    "reference_every": 400,
    "max_completion_length": 32768,
    "loss": "grpo",
    "advantage": "group",
    "lr_schedule": "constant",
}
CLIP_10 = {"clip_low": 10.0, "clip_high": 10.0, "rewards": "accuracy,format,language", "template": "chat"}
SFT: dict[str, Any] = {"lr": 5e-5, "lr_schedule": "cosine", "lr_floor": 0.1, "epochs": 2.0, "batch_rows": 128, "max_length": 32768}
RM = {"lr": 6e-6, "lr_schedule": "constant", "epochs": 1.0, "batch_rows": 256, "max_length": 8192, "center": 0.0, "margin": None}
NUMBERS: dict[tuple[str, str], dict[str, Any]] = {
    ("r1-zero", "grpo"): {
        **RL,
        "temperature": 1.0,
        "template": "r1-zero",
        "rewards": "accuracy,format",
        "steps": 10_400,
        "max_completion_length": "32768,65536@8200",
    },
    ("r1-cold-start", "sft"): SFT,
    ("r1-reasoning-rl", "grpo"): {**RL, **CLIP_10, "temperature": 1.0},
    ("r1-rejection-sft", "sample"): {"samples": 16, "max_completion_length": 32768, "temperature": 1.0},
    ("r1-rejection-sft", "reject"): {
        "rewards": "accuracy,format,language",
        "filters": "mixed-language,long-paragraph,code-block",
        "keep": "passing",
    },
    ("r1-rejection-sft", "sft"): SFT,
    ("r1-all-scenario-rl", "grpo"): {**RL, **CLIP_10, "temperature": 0.7, "steps": 1700},
    ("r1-helpful-rm", "rm"): {**RM, "view": "summary"},
    ("r1-helpful-rm", "reject"): {"rewards": "format", "pairs": True, "judge_margin": 1.0, "balance_lengths": True, "keep": "all"},
    ("r1-safety-rm", "rm"): {**RM, "view": "full"},
    ("dapo", "grpo"): {
        "lr": 1e-6,
        "lr_schedule": "constant",
        "clip_low": 0.2,
        "clip_high": 0.28,
        "beta": 0.0,
        "group_size": 16,
        "prompts_per_step": 32,
        "updates_per_rollout": 16,
        "max_completion_length": 20480,
        "loss": "dapo",
        "dynamic_sampling": "accuracy",
        "max_refills": 10,
        "mask_truncated": False,
        "rewards": "accuracy=2,overlong:max=20480:cache=4096",
    },
}
STUDENTS = {"qwen-1.5b": 1e-4, "qwen-7b": 8e-5, "qwen-14b": 7e-5, "qwen-32b": 6e-5, "llama-8b": 5e-5, "llama-70b": 2e-5}
for student, lr in STUDENTS.items():
    distilled = {**SFT, "lr": lr, "batch_rows": 64}
    NUMBERS[f"r1-distill-{student}", "sft"] = distilled
    NUMBERS[f"r1-distill-{student}", "distill"] = {**distilled, "max_completion_length": 32768}


@pytest.mark.parametrize(("preset", "command"), NUMBERS)
def test_presets_hold_the_papers_numbers(preset: str, command: str) -> None:
    required = {"model": "m"} if command != "distill" else {"student": "s"}
    if command not in ("sample", "reject"):
        required["out"] = "o"
    settings = resolve(command, {"preset": preset, **(required if command != "reject" else {})}, {}).settings
    wanted = NUMBERS[preset, command]
    assert {name: getattr(settings, name) for name in wanted} == wanted


def test_a_step_is_the_papers() -> None:
    """R1-Zero: 8,192 completions a rollout in 16 parts of 512; 10,400 updates in all, the reference follows every 400."""
    settings = resolve("grpo", {**GRPO, "preset": "r1-zero"}, {}).settings
    assert settings.prompts_per_step * settings.group_size == 512
    assert settings.prompts_per_step * settings.group_size * settings.updates_per_rollout == 8192
    assert (settings.steps, settings.reference_every) == (10_400, 400)
    assert settings.max_completion_length.switches() == ((0, 32768), (8200, 65536))


@pytest.mark.parametrize("text", ["", "0", "x", "8,16", "8@4", "8,16@4@5", "8,16@4,32@4", "8,16@9,32@4", "8,0@4", "-8", "8,16@", "1.5"])
def test_a_number_that_changes_must_say_when(text: str) -> None:
    error = refused("grpo", {**GRPO, "max_completion_length": text})
    assert "`--max-completion-length` must be a whole number of at least 1, and VALUE@STEP after commas" in error.message


def test_a_number_that_may_change_need_not(tmp_path: Path) -> None:
    config = write(tmp_path / "a.toml", "max_completion_length = 96\n")
    assert resolve("grpo", {**GRPO, "config": config}, {}).settings.max_completion_length == 96
    changing = resolve("grpo", {**GRPO, "max_completion_length": "8,16@4,32@9"}, {}).settings
    assert changing.max_completion_length.switches() == ((0, 8), (4, 16), (9, 32))
    again = resolve("grpo", {"config": run_config(tmp_path, "grpo", **vars(changing))}, {}).settings
    assert again == changing


def test_every_preset_and_every_table_of_it_is_checked_above() -> None:
    found = {(name, command) for name in preset_names() for command in _parse_toml(name, (PRESETS / f"{name}.toml").read_text())}
    assert found == set(NUMBERS)
    assert {command for _, command in found} == set(PRESET_COMMANDS) <= set(COMMANDS)


def test_unknown_presets_and_presets_for_other_commands() -> None:
    assert refused("grpo", {**GRPO, "preset": "r1-zer"}).hint == "did you mean `r1-zero`?"
    error = refused("sft", {**GRPO, "preset": "dapo"})
    assert (error.message, error.hint) == ("preset `dapo` says nothing about `r1 sft`", "it is for `r1 grpo`")
