"""Flags that would do nothing are refused where they were typed, and only there; a dry run refuses what the run would."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from r1cli.commands import grpo, sft
from r1cli.commands.useless_flags import DRAWING, LOADING, RULES, check_dry_run, refuse_useless
from r1cli.config import PRESETS, from_preset, preset_names, resolve
from r1cli.errors import R1Error
from r1cli.guard import Context
from r1cli.report.console import Console
from r1cli.settings import COMMANDS

GIVEN: dict[str, dict[str, Any]] = {
    "grpo": {"model": "m", "out": "o"},
    "sft": {"model": "m", "out": "o"},
    "rm": {"model": "m", "out": "o"},
    "distill": {"student": "s", "teacher": "t", "out": "o"},
}
ROWS: dict[str, dict[str, Any]] = {"sample": {"model": "m"}, "eval": {"inputs": ["c.jsonl"]}, "reject": {}, "mix": {"inputs": ["a.jsonl"]}}
SERVER = "http://127.0.0.1:1/v1"
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [  # command, field, what makes it useless, what makes it useful
    ("grpo", "clip_low", {"loss": "cispo"}, {"loss": "dapo"}),
    ("grpo", "clip_cap", {"loss": "cispo"}, {"loss": "dapo"}),
    ("grpo", "reference_mix", {"reference_every": "0"}, {"reference_every": "1"}),
    ("grpo", "reference_mix", {"beta": "0"}, {"beta": "0.1"}),
    ("grpo", "kl", {"beta": "0"}, {"beta": "0.1"}),
    ("grpo", "reward_model_from", {}, {"reward_model": ["helpful=rm"]}),
    ("grpo", "importance_rule", {"importance_cap": "0"}, {"importance_cap": "2"}),
    ("grpo", "max_refills", {}, {"dynamic_sampling": "accuracy"}),
    ("grpo", "gpu_memory", {"engine": "transformers"}, {"engine": "vllm"}),
    ("grpo", "engine_sleep", {"url": [SERVER]}, {}),
    ("grpo", "server_weights", {}, {"url": [SERVER]}),
    ("grpo", "api_key_env", {"reward_model": [f"helpful={SERVER}"]}, {"url": [SERVER]}),  # a reward model has :key=
    ("distill", "api_key_env", {}, {"teacher": SERVER}),
    *((command, name, {}, {"url": [SERVER]}) for command in ("grpo", "distill") for name in ("request_timeout", "retries", "server_wait")),
    ("grpo", "server_wait", {"reward_model": ["helpful=rm"]}, {"reward_model": [f"helpful={SERVER}"]}),
    ("distill", "retries", {}, {"teacher": SERVER}),
    *((command, "project", {}, {"track": "tensorboard"}) for command in ("grpo", "sft", "rm")),
    *((command, "lr_floor", {"lr_schedule": "constant"}, {"lr_schedule": "linear"}) for command in GIVEN),
    *((command, "kv_cache_gib", {"engine": "transformers"}, {"engine": "vllm"}) for command in ("grpo", "distill", "sample")),
    ("sample", "gpu_memory", {"engine": "transformers"}, {"engine": "auto"}),
    *(("sample", name, {}, {"rewards": "format"}) for name in ("reward_timeout", "reward_workers", "sandbox_level", "unsafe")),
    ("sample", "reward_timeout", {}, {"until": "correct=4"}),
    ("eval", "reward_timeout", {"rewards": "", "reward_model": ["helpful=rm"]}, {"reward_model": ["helpful=rm"]}),
    *(("eval", name, {}, {"model": "m"}) for name in (*DRAWING.split(), *LOADING.split(), "batch_size", "trust_remote_code")
      if name not in ("api_key_env", "kv_cache_gib")),
    ("eval", "api_key_env", {}, {"model": "m", "url": [SERVER]}),
    ("eval", "gpu_memory", {"rewards": "refusal"}, {"rewards": "refusal", "judge": "j"}),
    ("eval", "temperature", {"rewards": "refusal", "judge": "j"}, {"model": "m"}),
    *(("reject", name, {"reward_model": ["helpful=rm"]}, {"judge": "j"}) for name in LOADING.split() if name != "api_key_env"),
    ("reject", "api_key_env", {}, {"judge": SERVER}),
    ("reject", "batch_size", {"reward_model": ["helpful=rm"]}, {"reward_model": [f"helpful={SERVER}"]}),
    ("reject", "request_timeout", {"judge": "j"}, {"judge": SERVER}),
    ("reject", "trust_remote_code", {}, {"reward_model": ["helpful=rm"]}),
    ("reject", "pick", {}, {"per_prompt": "1"}),
    ("reject", "pick", {"per_prompt": "0"}, {"pairs": True}),
    ("mix", "similarity", {"dedupe": "exact"}, {"dedupe": "minhash"}),
    ("mix", "ngram", {}, {"decontaminate": ["b.jsonl"]}),
    *(("mix", "stratify", {}, {"inputs": [part]}) for part in ("a:7", "a:25%", "a:2x", "a=2")),
    ("mix", "stratify", {"inputs": ["a", "b"]}, {"validation": "2%"}),
]  # fmt: skip
VALUES: dict[str, Any] = {
    "kl": "k1", "importance_rule": "mask", "server_weights": "folder", "api_key_env": "KEY", "project": "sums", "engine_sleep": True,
    "clip_cap": "3", "sandbox_level": "limits", "unsafe": True, "trust_remote_code": True, "think_prefix": True, "shuffle_choices": True,
    "engine": "vllm", "dtype": "float32", "template": "boxed", "url": [SERVER], "stop": ["x"], "pick": "best",
}  # fmt: skip


@pytest.mark.parametrize(("command", "name", "useless", "useful"), CASES)
def test_a_flag_that_does_nothing_is_refused(command: str, name: str, useless: dict[str, Any], useful: dict[str, Any]) -> None:
    flag = {name: VALUES.get(name, "1")}
    found = resolve(command, {**(GIVEN | ROWS)[command], **useless, **flag}, {})
    with pytest.raises(R1Error, match=f"--{name.replace('_', '-')} does nothing: ") as caught:
        refuse_useless(found.settings, found.sources)
    assert caught.value.code == 2 and caught.value.hint
    for layer in ("env", "config", "preset", "default"):
        refuse_useless(found.settings, {**found.sources, name: layer})
    found = resolve(command, {**(GIVEN | ROWS)[command], **useful, **flag}, {})
    refuse_useless(found.settings, found.sources)


def test_every_rule_is_about_fields_that_exist() -> None:
    known = {field.name for settings in (COMMANDS[command] for command in GIVEN | ROWS) for field in dataclasses.fields(settings)}
    assert {name for rule in RULES for name in rule.names} <= known
    assert {name for rule in RULES for name in rule.names} - {name for _, name, _, _ in CASES} <= {
        "kl_correction", "reference_every", "importance",
    }  # fmt: skip


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_loads(preset: str) -> None:
    for command, given in (GIVEN | ROWS).items():
        if f"[{command}]" in (PRESETS / f"{preset}.toml").read_text("utf-8"):
            assert from_preset(command, preset)
            found = resolve(command, {**given, "preset": preset}, {})
            refuse_useless(found.settings, found.sources)


@pytest.mark.parametrize(("command", "run"), [("sft", sft.run), ("grpo", grpo.run)])
def test_the_commands_look_before_anything_is_read(command: str, run: Any) -> None:
    found = resolve(command, {**GIVEN[command], "project": "sums", "dry_run": True}, {})
    with pytest.raises(R1Error, match="--project does nothing: it belongs to --track"):
        run(found.settings, Context(command, found.sources, Console(stream=io.StringIO())))


def dry(command: str, tiny: Path, folder: Path, **flags: Any) -> None:
    row = '{"id": 1, "prompt": "What is 1 + 1?", "completion": "<think>\\nx\\n</think>\\n2"}\n'
    (folder / "rows.jsonl").write_text(row)
    given = {"model": str(tiny), "out": str(folder / "run"), "inputs": [str(folder / "rows.jsonl")], "dtype": "float32", "dry_run": True}
    given |= {"rewards": "language", "max_completion_length": "8"} if command == "grpo" else {}
    found = resolve(command, {**given, **flags}, {})
    {"sft": sft, "grpo": grpo}[command].run(found.settings, Context(command, found.sources, Console(stream=io.StringIO())))


@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_a_dry_run_refuses_what_the_run_would(tiny: Path, tmp_path: Path, command: str) -> None:
    dry(command, tiny, tmp_path)
    with pytest.raises(R1Error, match="`/nonexistent` does not exist"):
        dry(command, tiny, tmp_path, accelerate_config="/nonexistent")
    if not torch.cuda.is_available():
        with pytest.raises(R1Error, match="--offload does nothing here: the model is trained on a CPU"):
            dry(command, tiny, tmp_path, offload="optimizer")
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_is_none_is_refused_in_a_dry_run(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rows: 3\n")
    settings = resolve("sft", {**GIVEN["sft"], "accelerate_config": str(tmp_path / "mine.yaml"), "dry_run": True}, {}).settings
    with pytest.raises(R1Error, match="is no configuration of accelerate"):
        check_dry_run(settings)


@pytest.mark.parametrize("command", ["sft", "distill"])
def test_no_epochs_are_refused(command: str) -> None:
    with pytest.raises(R1Error, match=r"`--epochs` must be a number of at least 0\.0001, found `0`"):
        resolve(command, {**GIVEN[command], "epochs": "0"}, {})
    assert resolve(command, {**GIVEN[command], "epochs": "0.5"}, {}).settings.epochs == 0.5
