"""`--reward-model` as rewards that are ready to score: entries read, folders found, models loaded or servers asked.

Nothing is loaded before everything that a user can get wrong is checked: `model_rewards` needs no torch, `open_models` brings it.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1cli.engines.protocol import SEQUENCES
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.rewards.model_spec import ModelSpec, parse_models
from r1cli.rewards.preference import PreferenceReward
from r1cli.rewards.registry import parse_specs
from r1cli.rewards.reward import RewardSpec
from r1cli.row import Row

Models = list[tuple[RewardSpec, PreferenceReward]]
"""Reward models, each with its entry in the list of rewards."""


def rule_rewards(settings: Any) -> list[RewardSpec]:
    """`--rewards`; it may be empty when there are reward models."""
    if not settings.rewards.strip() and settings.reward_model:
        return []
    return parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe)


def model_specs(settings: Any) -> list[ModelSpec]:
    """`--reward-model`, each with its folder found. Raises `R1Error` (exit 2 or 3) for what cannot be read or is not there."""
    specs = parse_models(settings.reward_model, [spec.name for spec in rule_rewards(settings)])
    for spec in specs:
        if not spec.remote:
            _check_labels(spec, _folder(spec, settings, lambda _: None))
        elif spec.options.key and not os.environ.get(spec.options.key):
            raise R1Error(
                f"the environment variable `{spec.options.key}` of reward model `{spec.name}` holds no key",
                hint=f"export {spec.options.key}=...",
                code=Exit.ENVIRONMENT,
            )
    return specs


def all_rewards(settings: Any) -> list[RewardSpec]:
    """Rules, then models: every reward that a row can get, in the order of its `rewards`."""
    start = getattr(settings, "reward_model_from", 0)
    return [*rule_rewards(settings), *(spec.reward(start) for spec in model_specs(settings))]


def check_unstaged(settings: Any) -> None:
    """Refuse (`R1Error`, exit 2) what only `r1 grpo` can do: a running normalisation (a start step is refused by the scorer)."""
    for spec in model_specs(settings):
        if spec.options.scale == "running":
            raise R1Error(
                f"reward model `{spec.name}`: scale=running depends on the rows before, and is for `r1 grpo`",
                hint="leave :scale=running out",
                code=Exit.USAGE,
            )


def check_sets(specs: Sequence[RewardSpec], rows: Iterable[Row]) -> None:
    """Refuse (`R1Error`, exit 2) a reward that is for sets no row names, and rows that no reward is for."""
    found = {row.get("set") for row in rows}
    names = ", ".join(f"`{name}`" for name in sorted(str(name) for name in found if name is not None)) or "none"
    for spec in specs:
        if spec.sets and not found & set(spec.sets):
            raise R1Error(
                f"reward `{spec.name}` is for rows whose `set` is {' or '.join(f'`{name}`' for name in spec.sets)}, and there are none",
                hint=f"sets in the rows: {names}; leave :set= out, or name the rows' field with --map set=COLUMN",
                code=Exit.USAGE,
            )


@contextmanager
def open_models(settings: Any, context: Context, *, device: Any = None) -> Iterator[Models]:
    """The reward models, loaded and with their entry in the list of rewards; servers are let go of at the end."""
    start, opened = getattr(settings, "reward_model_from", 0), []
    servers: list[Any] = []
    try:
        for spec in model_specs(settings):
            model = _server(spec, settings) if spec.remote else _local(spec, settings, context, device)
            servers += [model] if spec.remote else []
            opened.append((spec.reward(start), PreferenceReward(spec, model)))
        yield opened
    finally:
        for server in servers:
            server.close()


def _folder(spec: ModelSpec, settings: Any, say: Callable[[str], None]) -> str:
    for folder in (Path(spec.source), Path(spec.source) / "final"):
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            return str(folder)  # the base is where the adapter says
    try:
        return model_folder(spec.source, settings.trust_remote_code, say=say)
    except R1Error as error:
        raise R1Error(f"reward model `{spec.name}`: {error.message}", hint=error.hint, code=error.code) from error


def _check_labels(spec: ModelSpec, folder: str) -> None:
    """Refuse (`R1Error`, exit 2) a language model early: transformers takes a configuration that names no labels for one with two."""
    file = Path(folder) / "config.json"
    if file.is_file() and len(json.loads(file.read_text("utf-8")).get("id2label", ("", ""))) != 1:
        raise R1Error(
            f"reward model `{spec.name}`: `{spec.source}` is no reward model, it does not have exactly one label",
            hint="a reward model is a sequence classifier with one label: `r1 rm` trains one",
            code=Exit.USAGE,
        )


def _local(spec: ModelSpec, settings: Any, context: Context, device: Any) -> Any:
    from r1cli.engines.reward_model import load_reward_model

    folder = _folder(spec, settings, context.console.info)
    context.console.detail(f"loading reward model `{folder}`")
    return load_reward_model(
        folder,
        name=spec.name,
        dtype=spec.options.dtype,
        template=spec.options.template,
        batch_tokens=spec.options.tokens,
        device=device,
        trust_remote_code=settings.trust_remote_code,
    )


def _server(spec: ModelSpec, settings: Any) -> Any:
    from r1cli.engines.reward_server import ServerRewardModel

    if spec.options.template != "own":
        raise R1Error(f"reward model `{spec.name}`: a server renders with its own template", hint="leave :template= out", code=Exit.USAGE)
    return ServerRewardModel(
        spec.source,
        name=spec.name,
        model=spec.options.model,
        key=os.environ.get(spec.options.key) if spec.options.key else None,
        at_once=settings.batch_size or SEQUENCES,
        timeout=settings.request_timeout,
        retries=settings.retries,
        patience=settings.server_wait,
    )
