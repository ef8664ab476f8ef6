"""What peft warns of when experts are adapted: what is wrong of it is not passed on, the rest is."""

import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1cli.errors import R1Error
from r1cli.train import lora
from r1cli.train.lora import FALSE_ALARM, LoraConfig
from r1cli.train.model import load_policy
from tests.train.test_checkpoint_names import MOE, folder_of

peft = pytest.importorskip("peft")


@pytest.mark.parametrize("name", MOE)
def test_the_pattern_that_peft_says_it_ignores_is_applied(tmp_path: Path, name: str) -> None:
    """If it were not any more, the warning would be right."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy = load_policy(folder_of(name, tmp_path), lora=LoraConfig(rank=2, alpha=8.0))
    found = {layer.parameter_name: layer for layer in policy.modules() if getattr(layer, "parameter_name", "").endswith("_proj")}
    assert {name: layer.r["default"] for name, layer in found.items()} == {"gate_up_proj": 4, "down_proj": 2}
    assert {layer.scaling["default"] for layer in found.values()} == {4.0}


def test_another_pattern_is_still_warned_of(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = peft.LoraConfig

    def config(**values: Any) -> Any:
        return made(**values, rank_pattern={"no_such_layer": 8})

    monkeypatch.setattr(lora, "_peft", lambda: SimpleNamespace(LoraConfig=config, get_peft_model=peft.get_peft_model))
    with pytest.warns(RuntimeWarning, match="no_such_layer"):
        load_policy(str(tiny), lora=LoraConfig(rank=2))
    said = "The following rank_pattern keys did not match any targeted module and were ignored: ['.*\\\\.gate_up_proj'{}]."
    assert re.match(FALSE_ALARM, said.format("")) and not re.match(FALSE_ALARM, said.format(", 'other'"))


def test_dropout_before_experts_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(R1Error, match="does not work with lora_dropout") as raised:
        load_policy(folder_of("Qwen3-MoE", tmp_path), lora=LoraConfig(rank=2, dropout=0.1))
    assert raised.value.code == 2
    assert raised.value.hint == "leave out --lora-dropout, or adapt no experts: --lora-targets q_proj,k_proj,v_proj,o_proj"
