"""A model with experts, one tensor a layer in memory and many in its files: two processes with FSDP2 against two with data parallelism.

Run as a module it is one of the processes: python -m tests.train.test_sharded_experts MODEL TOKENIZER OUT
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from r1cli.commands.launch import environment
from r1cli.model_folder import load_tokenizer
from r1cli.train.checkpoints import named_weights, save_model
from r1cli.train.model import accelerator_for
from r1cli.train.optimiser import OptimiserConfig
from tests.train.runs import grpo_run
from tests.train.test_checkpoint_names import MOE, folder_of
from tests.train.test_processes import pair_of
from tests.train.toy import largest_difference

ROOT = Path(__file__).parents[2]
SHARDED, WHOLE = "fsdp2-cpu", None
STEP: dict[str, Any] = {"optimiser": OptimiserConfig(lr=0.5, max_grad_norm=0.0), "steps": 2, "beta": 0.5, "microbatch_tokens": 30}


def in_two_processes(folder: str, tokenizer: Path, out: Path, configuration: str | None) -> list[dict[str, Any]]:
    """What each of two processes found (`work`)."""
    file = str(ROOT / f"examples/accelerate/{configuration}.yaml") if configuration else None
    common = environment(2, file)
    with pair_of("tests.train.test_sharded_experts", folder, str(tokenizer), str(out), shared=common):
        pass
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module", params=MOE)
def trained(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """base: the folder that both began with. sharded, whole: (what each process found, the folder that was saved)."""
    out = tmp_path_factory.mktemp("experts")
    base = folder_of(request.param, out / "base")
    found: dict[str, Any] = {"base": Path(base)}
    for name, configuration in (("sharded", SHARDED), ("whole", WHOLE)):
        (out / name).mkdir()
        found[name] = in_two_processes(base, tiny, out / name, configuration), out / name / "saved"
    return found


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def test_sharded_experts_take_the_steps_of_whole_ones(trained: dict[str, Any]) -> None:
    sharded, whole = trained["sharded"][0], trained["whole"][0]
    assert [one["cut"] for one in sharded] == [True, True] and [one["cut"] for one in whole] == [False, False]
    assert largest_difference(sharded[0]["weights"], sharded[1]["weights"]) == 0.0
    assert largest_difference(sharded[0]["weights"], whole[0]["weights"]) < 2e-6
    experts = [name for name in whole[0]["weights"] if ".experts." in name]
    start = {f"model.{name}": value for name, value in AutoModelForCausalLM.from_pretrained(trained["base"]).named_parameters()}
    assert experts and all((whole[0]["weights"][name] - start[name]).abs().max() > 1e-4 for name in experts)
    for one, other in zip(sharded[0]["records"], whole[0]["records"], strict=True):
        timed = {name for name in one if "second" in name}
        assert {k: v for k, v in one.items() if k not in timed} == pytest.approx(
            {k: v for k, v in other.items() if k not in timed}, abs=2e-5, rel=1e-4
        )


def test_what_is_saved_is_a_plain_model_like_the_one_it_began_with(trained: dict[str, Any]) -> None:
    saved, whole, base = weights_of(trained["sharded"][1]), weights_of(trained["whole"][1]), weights_of(trained["base"])
    assert saved.keys() == whole.keys() == base.keys()
    assert all(saved[name].shape == base[name].shape for name in base)
    assert largest_difference(saved, whole) < 2e-6
    _, loading = AutoModelForCausalLM.from_pretrained(trained["sharded"][1], output_loading_info=True)
    assert not any(loading.values())


def test_what_is_saved_and_handed_to_a_sampler_are_the_trained_weights(trained: dict[str, Any]) -> None:
    found, folder = trained["sharded"]
    again = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(again[name.removeprefix("model.")], value) for name, value in found[0]["weights"].items())
    files = weights_of(folder)
    for one in found:
        assert one["handed over"].keys() == files.keys()
        assert all(torch.equal(value, files[name]) for name, value in one["handed over"].items())


def work(folder: str, tokenizer: str, out: str) -> None:
    accelerator = accelerator_for("float32")
    kept: list[Any] = []
    weights, records = grpo_run(accelerator, folder, optimizer=torch.optim.SGD, kept=kept, **STEP)
    [policy] = kept
    save_model(accelerator, policy, load_tokenizer(tokenizer), Path(out) / "saved")
    found = {
        "weights": weights,
        "records": records,
        "cut": any(hasattr(value, "full_tensor") for value in policy.parameters()),
        "handed over": {name: value.clone() for name, value in named_weights(accelerator, policy).in_files()},
    }
    torch.save(found, Path(out) / f"{accelerator.process_index}.pt")
    accelerator.end_training()


if __name__ == "__main__":
    work(*sys.argv[1:])
