"""LoRA (arXiv 2106.09685) through peft: the weights stay as they are, W + alpha / rank * B A is what computes, and A and B are trained.

    policy = load_policy(folder, dtype="bfloat16", lora=LoraConfig(rank=16))      policy.lora is the `Lora` below
    lora = add_lora(model, LoraConfig(rank=16), task=CLASSIFICATION)                  any model of transformers

The model keeps its class; its linear layers are wrapped in place. A and B are float32, because an optimizer's small steps vanish in
bfloat16; the weights under them do not move and may be in the type that computes, which is half the memory of a float32 model.

peft is imported where it is used: it is an extra, and takes a second.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from r1cli.errors import Exit, R1Error, first_line
from r1cli.train.checkpoint_names import Outline, check_names, outline_of
from r1cli.train.state_files import way_out

LANGUAGE, CLASSIFICATION = "CAUSAL_LM", "SEQ_CLS"  # as peft calls the tasks
ALL_LINEAR = "all-linear"
ADAPTER = "adapter"  # folder beside merged weights
NAME = "default"  # peft's name for a model's only adapter
WEIGHTS = "adapter_model.safetensors"
FALSE_ALARM = r"The following (rank|alpha)_pattern keys did not match any targeted module and were ignored: \['\.\*\\\\\.gate_up_proj'\]"
MERGEABLE = "--lora-targets q_proj,k_proj,v_proj,o_proj"  # in most models with experts


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """rank of B A; its weight is alpha / rank. targets: `all-linear` (every linear layer but the output's), or names of layers, by commas.

    seed: of A; B starts at zero, so that the first step begins at the model as it was.
    """

    rank: int
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str = ALL_LINEAR
    seed: int = 0


class Lora:
    """The adapter of a model: what is trained, merged, saved and switched off. `wrapper` is peft's model around it.

    plain: what the model had before.
    """

    def __init__(self, wrapper: Any, plain: Outline) -> None:
        self.wrapper, self.plain = wrapper, plain

    @property
    def model(self) -> Any:
        """The model itself, with its layers wrapped."""
        return self.wrapper.base_model.model

    def merged(self, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of a plain model under its own names, in its own types: equal to those of peft's `merge_and_unload`.

        state: the wrapped model's tensors by name, whole. Raises `R1Error` (exit 2), before the first, for what is not the plain model's.
        """
        names = {name: plain for name in state if (plain := _plain_name(name)) is not None}
        check_names(names.values(), self.plain, MERGEABLE)
        layers = {name: layer for name, layer in self.model.named_modules() if _is_adapted(layer)}
        for name, plain in names.items():
            value = state[name]
            for place, part in _places(name):
                layer = layers[place]
                if _is_of_parameter(layer):  # fused experts: a wrapper for each of their tensors, one inside of the other
                    if part == layer.parameter_name:
                        value = value.detach().clone().add_(layer.get_delta_weight(NAME).detach())
                elif part == "weight":
                    a, b = (state[f"{place}.{factor}.{NAME}.weight"] for factor in ("lora_A", "lora_B"))
                    value = _sum(value, a, b, layer)
            yield plain, value

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write the adapter as peft does: `adapter_config.json`, and A and B in float32. state: as for `merged`."""
        named = {f"base_model.model.{name}": value for name, value in state.items()}
        self.wrapper.save_pretrained(folder, state_dict=named, save_embedding_layers=False)

    def load(self, folder: Path) -> None:
        """Take over what `save` wrote, from `folder` or from `folder`/adapter. Raises `R1Error` (exit 2) for what is damaged, or another
        adapter's."""
        from peft import set_peft_model_state_dict

        found = next((place for place in (folder / ADAPTER, folder) if (place / WEIGHTS).is_file()), None)
        if found is None:
            raise R1Error(f"`{folder}` has no adapter to go on from (looked for {WEIGHTS})", hint=way_out(folder), code=Exit.USAGE)
        try:
            stored = load_file(found / WEIGHTS)
        except (SafetensorError, OSError) as error:
            raise R1Error(f"`{found / WEIGHTS}` cannot be read: {error}", hint=way_out(folder), code=Exit.USAGE) from error
        try:
            result: Any = set_peft_model_state_dict(self.wrapper, stored)
            strange = list(result.unexpected_keys)
            strange += [name for name in result.missing_keys if _is_trained(name)]
        except RuntimeError as error:  # torch's, for a tensor of another size
            strange = [str(error).splitlines()[-1].strip()]
        if strange:
            raise R1Error(
                f"the adapter in `{found}` is not of this shape: {strange[0]}",
                hint="take the --lora and --lora-targets it was trained with",
                code=Exit.USAGE,
            )

    def weights(self) -> dict[str, nn.Parameter]:
        """A and B of every layer, and a classification's own head, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if _is_trained(name)}


def add_lora(model: Any, config: LoraConfig, *, task: str = LANGUAGE) -> Lora:
    """Wrap the layers of a model of transformers, in place, and freeze everything else; a classification's head stays trained, in float32.

    Raises `R1Error`: exit 3 without peft, exit 2 for targets that the model does not have or that cannot be adapted.
    """
    peft = _peft()
    targets: Any = config.targets if config.targets == ALL_LINEAR else [part.strip() for part in config.targets.split(",")]
    settings = peft.LoraConfig(
        task_type=task, r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets, bias="none"
    )
    plain = outline_of(model)
    known = [f".{name}" for name, _ in (*model.named_modules(), *model.named_parameters())]
    for target in targets if isinstance(targets, list) else []:  # peft leaves a name out that no layer has, when it finds another
        if not any(name.endswith(f".{target}") for name in known):
            raise _no_targets(config.targets, model, f"no layer is called `{target}`")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # the model is on the CPU; the generators of GPUs are left alone
        try:
            with _without_a_false_alarm():
                lora = Lora(peft.get_peft_model(model, settings), plain)
        except ValueError as error:
            raise _no_targets(config.targets, model, first_line(error)) from error
    for embedding in (model.get_input_embeddings(), _output_of(model)):
        if embedding is not None and _is_adapted(embedding):
            raise R1Error(
                f"--lora-targets {config.targets} names the embeddings or the output layer, which share their weights in many models",
                hint="--lora-targets all-linear, or names of layers inside of the blocks",
                code=Exit.USAGE,
            )
    names = (_plain_name(name) for name in outline_of(model).tensors)
    check_names((name for name in names if name is not None), plain, MERGEABLE)  # now, and not after the training
    for weight in lora.weights().values():
        weight.data = weight.data.float()
    return lora


@contextmanager
def _without_a_false_alarm() -> Iterator[None]:
    """peft itself gives fused experts (`gate_up_proj`, two layers in one tensor) twice the rank and alpha by a pattern, applies it, and
    warns that it was ignored: it looks for it among modules, and they are parameters. Any other pattern is still warned of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", FALSE_ALARM, RuntimeWarning)
        yield


def adapter_folder(folder: Path) -> Path:
    """Where a checkpoint's adapter is: `folder`/adapter, or `folder` itself. Raises `R1Error` (exit 2) when there is none."""
    found = next((place for place in (folder / ADAPTER, folder) if (place / WEIGHTS).is_file()), None)
    if found is None:
        raise R1Error(f"`{folder}` has no adapter to go on from (looked for {WEIGHTS})", hint=way_out(folder), code=Exit.USAGE)
    return found


class LoraReference:
    """The reference policy when LoRA is trained: the policy's own weights with the adapter switched off. No second model is in memory.

    A renewed reference is the adapter as it was then: `kept`, by name.
    """

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.lora: Lora = policy.lora
        self.kept: dict[str, Tensor] = {}

    def eval(self) -> "LoraReference":
        self.policy.eval()
        return self

    @torch.no_grad()
    def __call__(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """As `Policy.forward`, without gradient."""
        with self._kept_in_place() if self.kept else without_adapter(self.policy):
            return self.policy(*batch)

    @torch.no_grad()
    def renew(self) -> None:
        """Follow the policy to where it is now."""
        self.kept = {name: weight.detach().clone() for name, weight in self.lora.weights().items()}

    @contextmanager
    def _kept_in_place(self) -> Iterator[None]:
        weights = self.lora.weights()
        trained = {name: weight.detach().clone() for name, weight in weights.items()}
        try:
            _write(weights, self.kept)
            yield
        finally:
            _write(weights, trained)

    def state_dict(self) -> dict[str, Tensor]:
        return self.kept

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        weights = self.lora.weights()
        self.kept = {name: value.to(weights[name].device, copy=True) for name, value in state.items()}  # the file may go


@contextmanager
def without_adapter(policy: Any) -> Iterator[None]:
    """Switch the adapter of a `Policy` off: in its model, and in its copy in the computation type if there is one then or at the end."""
    _switch(policy, off=True)
    try:
        yield
    finally:
        _switch(policy, off=False)


def _switch(policy: Any, *, off: bool) -> None:
    """peft's `enable_adapters` would take `requires_grad` from A and B, at which the copy and the optimizer have looked already."""
    for model in policy.computing():
        for layer in model.modules():
            if _is_adapted(layer):
                layer._disable_adapters = off


def _write(weights: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])


def _sum(weight: Tensor, a: Tensor, b: Tensor, layer: Any) -> Tensor:
    """weight + alpha / rank * B A, rounded once, to the weight's type. (Convolutions of GPT-2 hold their weight transposed.)"""
    product = b @ a
    return weight.detach().clone().add_((product.T if layer.fan_in_fan_out else product).detach() * layer.scaling[NAME])


def _plain_name(name: str) -> str | None:
    """What a tensor was called before the model was wrapped; None for what came with the adapter."""
    if ".lora_" in name or ".original_module." in name:
        return None
    return ".".join(part for part in name.split(".") if part != "base_layer").replace(f".modules_to_save.{NAME}.", ".")


def _places(name: str) -> Iterator[tuple[str, str]]:
    """(name of a wrapped layer that holds this tensor, the tensor's name inside of it), from the outermost."""
    parts = name.split(".")
    for number, part in enumerate(parts):
        if part == "base_layer":
            yield ".".join(parts[:number]), ".".join(inner for inner in parts[number:] if inner != "base_layer")


def _is_of_parameter(layer: Any) -> bool:
    from peft.tuners.lora.layer import ParamWrapper

    return isinstance(layer, ParamWrapper)


def _is_adapted(layer: Any) -> bool:
    from peft.tuners.lora import LoraLayer

    return isinstance(layer, LoraLayer)


def _is_trained(name: str) -> bool:
    return ".lora_" in name or f".modules_to_save.{NAME}." in name


def _output_of(model: Any) -> Any:
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None


def _no_targets(targets: str, model: Any, why: str) -> R1Error:
    hint = "linear layers here: " + ", ".join(sorted(_linear_names(model.named_modules())))
    if "lora_dropout" in why:  # of a tensor of several experts, which no layer could drop from
        hint = f"leave out --lora-dropout, or adapt no experts: {MERGEABLE}"
    return R1Error(f"--lora-targets {targets} cannot be adapted: {why.rstrip('.')}", hint=hint, code=Exit.USAGE)


def _linear_names(modules: Iterable[tuple[str, nn.Module]]) -> set[str]:
    return {name.rpartition(".")[2] for name, module in modules if isinstance(module, nn.Linear)}


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise R1Error(
            "--lora needs the package `peft`, which is not installed", hint="pip install 'r1cli[lora]'", code=Exit.ENVIRONMENT
        ) from error
    return peft
