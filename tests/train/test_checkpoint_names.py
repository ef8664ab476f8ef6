"""Weights under the names of a model's files, against those files: of models that transformers changes while it loads them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import Chunk, GroupWeightRename, WeightConverter

from r1cli.engines import reload
from r1cli.engines.model_files import as_in_files, check_handing_over, is_tied, tensor_names
from r1cli.engines.server import ServerEngine
from r1cli.errors import R1Error
from r1cli.model_folder import load_tokenizer
from r1cli.train.checkpoint_names import Weights, outline_of
from r1cli.train.checkpoints import named_weights, save_model
from r1cli.train.model import load_policy
from tests.train.test_architectures import COMPOSITE, LLAMA, made

EXPERTS: dict[str, Any] = {**LLAMA, "head_dim": 16, "moe_intermediate_size": 16, "num_experts_per_tok": 2}
GLM: dict[str, Any] = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
MOE: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3-MoE": ("Qwen3Moe", {**EXPERTS, "num_experts": 4}),
    "GLM4-MoE": ("Glm4Moe", {**EXPERTS, **GLM}),
}
BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


def folder_of(name: str, folder: Path) -> str:
    """As `made`, and models with experts, whose buffers are not zero."""
    if name not in MOE:
        return made(name, folder)
    kind, values = MOE[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, f"{kind}Config")(**values))
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("e_score_correction_bias"):
            buffer.normal_()
    model.save_pretrained(folder)
    return str(folder)


def handed_over(weights: Any, folder: str) -> dict[str, Tensor]:
    return dict(as_in_files(weights, tensor_names(folder), folder, tied=is_tied(folder)))


def in_file(folder: str | Path) -> dict[str, Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", [*MOE, "GPT-NeoX", *COMPOSITE])
def test_an_engine_that_reads_files_gets_what_they_have(accelerator: Any, tmp_path: Path, name: str) -> None:
    folder = folder_of(name, tmp_path / "model")
    policy = load_policy(folder)
    check_handing_over(named_weights(accelerator, policy), folder)
    assert_same(handed_over(named_weights(accelerator, policy), folder), in_file(folder))


@pytest.mark.parametrize("name", [*MOE, "GPT-NeoX", *COMPOSITE])
def test_what_was_trained_is_what_comes(accelerator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As `save_pretrained` writes it; to servers through a folder too."""
    folder = folder_of(name, tmp_path / "model")
    policy = load_policy(folder)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(torch.randn(weight.shape))
    found = handed_over(named_weights(accelerator, policy), folder)
    policy.model.save_pretrained(tmp_path / "saved")
    expected = in_file(tmp_path / "saved")
    assert_same({key: found[key] for key in expected}, expected)
    assert all(name == "Qwen 3.5, its text alone" and "visual" in key for key in found.keys() - expected.keys())

    def order(fleet: Any, server: Any, path: str, body: Any, what: str) -> dict[str, Any]:
        got.update(in_file(body["kwargs"]["folder"]) if body else {})
        return {}

    got: dict[str, Tensor] = {}
    monkeypatch.setattr(reload, "_way", lambda *given, **named: ("r1_reload", "folder"))
    monkeypatch.setattr(reload, "order", order)
    server: Any = object.__new__(ServerEngine)
    server._folder, server._running, server._weights, server._fleet = folder, {}, "folder", SimpleNamespace(servers=["one"])
    server.load_weights(named_weights(accelerator, policy))
    assert_same(got, found)


def test_usual_models_go_as_they_are(accelerator: Any, tiny: Path) -> None:
    policy = load_policy(str(tiny))
    found = handed_over(named_weights(accelerator, policy), str(tiny))
    assert {name: value.data_ptr() for name, value in found.items()} == {n: p.data_ptr() for n, p in policy.model.named_parameters()}


def test_a_group_goes_as_soon_as_it_is_whole(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder_of("Qwen3-MoE", tmp_path))
    taken: list[str] = []

    def named() -> Any:
        for name, value in model.named_parameters():
            taken.append(name)
            yield name, value

    for name, _ in Weights(model, outline_of(model), named()).in_files():
        if name == "model.layers.0.mlp.experts.0.gate_proj.weight":
            assert taken[-1] == "model.layers.0.mlp.experts.gate_up_proj"
    assert len(taken) == len(list(model.parameters()))


def fused(model: Any) -> dict[str, Tensor]:
    """What files have where keys and values are one tensor in them."""
    found = {name: value.detach() for name, value in model.named_parameters()}
    for layer in ("model.layers.0.self_attn", "model.layers.1.self_attn"):
        found[f"{layer}.kv_proj.weight"] = torch.cat([found.pop(f"{layer}.{part}_proj.weight") for part in "kv"])
    return found


@pytest.mark.parametrize("kind", ["joined", "depending on each other"])
def test_tensors_that_wait_for_each_other(tiny: Path, kind: str) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    if kind == "joined":
        names = [f"self_attn.{part}_proj.weight" for part in "kv"]
        model._weight_conversions = [WeightConverter(["self_attn.kv_proj.weight"], names, operations=[Chunk(dim=0)])]
        expected = fused(model)
    else:  # the second is renamed only where the first was seen
        model._weight_conversions = [GroupWeightRename(["a_layernorm", "input_layernorm"], ["input_layernorm", "post_attention_layernorm"])]
        values = dict(model.named_parameters())
        expected = transformers.core_model_loading.revert_weight_conversion(model, {name: value.detach() for name, value in values.items()})
        assert expected.keys() != values.keys()
    found = dict(Weights(model, outline_of(model), model.named_parameters()).in_files())
    assert_same(found, expected)


def test_what_the_trainer_does_not_hold_stays_as_the_files_have_it(accelerator: Any, tmp_path: Path) -> None:
    folder = folder_of("Qwen3-MoE", tmp_path)
    guessing = {"model.layers.2.eh_proj.weight": torch.randn(4, 4)}
    save_file({**in_file(folder), **guessing}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    policy = load_policy(folder)
    check_handing_over(named_weights(accelerator, policy), folder)
    assert_same(handed_over(named_weights(accelerator, policy), folder), in_file(folder))


def test_other_names_are_refused_before_anything_comes(accelerator: Any, tiny: Path, tmp_path: Path) -> None:
    policy = load_policy(str(tiny))
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    stored = in_file(tiny)
    stored["model.layers.0.mlp.down.weight"] = stored.pop("model.layers.0.mlp.down_proj.weight")
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused = "its files name 1 tensors as the trained model does not, first `model.layers.0.mlp.down.weight`"
    with pytest.raises(R1Error, match=refused) as raised:
        check_handing_over(named_weights(accelerator, policy), str(tmp_path))
    assert raised.value.code == 2 and "--engine transformers" in (raised.value.hint or "")
    with pytest.raises(R1Error, match=refused):
        next(as_in_files(named_weights(accelerator, policy), tensor_names(str(tmp_path)), str(tmp_path), tied=True))


def test_a_part_that_never_came_is_not_taken_from_the_files(tmp_path: Path) -> None:
    folder = folder_of("Qwen3-MoE", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    some = [(name, value) for name, value in model.named_parameters() if "layers.1.mlp.experts.down_proj" not in name]
    with pytest.raises(R1Error, match=r"weights are incomplete: 4 tensors did not come, first `model.layers.1.mlp.experts.0.down_proj"):
        handed_over(Weights(model, outline_of(model), some), folder)


def test_a_conversion_that_cannot_be_taken_back_is_refused(accelerator: Any, tmp_path: Path) -> None:
    folder = folder_of("GPT-NeoX", tmp_path)
    policy: Any = load_policy(folder)
    policy.model._weight_conversions[0].quantization_operation = object()
    with pytest.raises(R1Error, match="cannot be named as its files do: Cannot reverse"):
        check_handing_over(named_weights(accelerator, policy), folder)


@pytest.fixture
def sharded() -> Any:
    """Stands for FSDP2 on one process: what is gathered is there."""

    values = {"is_fsdp2": True, "distributed_type": "FSDP", "is_main_process": True}
    return SimpleNamespace(**values, unwrap_model=lambda policy: policy, wait_for_everyone=lambda: None)


def test_sharded_saves_keep_persistent_buffers(sharded: Any, tiny: Path, tmp_path: Path) -> None:
    folder = folder_of("GLM4-MoE", tmp_path / "model")
    policy = load_policy(folder)
    save_model(sharded, policy, load_tokenizer(str(tiny)), tmp_path / "saved")
    assert BIAS in in_file(folder)
    assert_same(in_file(tmp_path / "saved"), in_file(folder))
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.state_dict()[BIAS], in_file(folder)[BIAS])


def test_a_tied_head_is_no_buffer(sharded: Any, tiny: Path) -> None:
    assert json.loads((tiny / "config.json").read_text())["tie_word_embeddings"]
    policy = load_policy(str(tiny))
    assert dict(named_weights(sharded, policy)).keys() == in_file(tiny).keys()
    assert outline_of(policy.model).again == {"lm_head.weight"}
