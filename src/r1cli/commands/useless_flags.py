"""Flags that a training command refuses because they would do nothing, and what a dry run refuses as the run would.

One table for all commands: a rule is looked at only when its flag was given on the command line, so a command without that flag never
meets it. A value from a variable, a file or a preset is never refused: a recipe may set what one of its runs does not need.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from r1cli.commands import launch
from r1cli.commands.before_run import check_adapter
from r1cli.commands.sampling import uses_server
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context


class Rule(NamedTuple):
    """Fields that do nothing when `useless(settings)` is true, and why."""

    names: tuple[str, ...]
    useless: Callable[[Any], bool]
    why: str


def _draws_elsewhere(settings: Any) -> bool:
    """Whether completions come from a server. A teacher may be named by its address."""
    return uses_server(settings) or _is_address(getattr(settings, "teacher", None) or "")


def _asks_servers(settings: Any) -> bool:
    """Whether completions, or the scores of a reward model, come from a server."""
    models = (entry.partition("=")[2] for entry in getattr(settings, "reward_model", []))
    return _draws_elsewhere(settings) or any(map(_is_address, models))


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _unweighted(settings: Any) -> bool:
    return not (settings.importance_cap or settings.importance_floor)


RULES = (
    Rule(("clip_low",), lambda s: s.loss == "cispo", "--loss cispo has no lower clip"),
    Rule(("clip_cap",), lambda s: s.loss == "cispo", "--loss cispo caps its weight already"),
    Rule(("kl", "kl_correction", "reference_every", "reference_mix"), lambda s: not s.beta, "--beta is 0: there is no KL"),
    Rule(("reference_mix",), lambda s: not s.reference_every, "--reference-every is 0: the reference never follows the policy"),
    Rule(("importance", "importance_rule"), _unweighted, "--importance-cap 0 turns it off"),
    Rule(("gpu_memory",), lambda s: s.engine == "transformers", "it is vLLM's, and --engine transformers draws"),
    Rule(("max_refills",), lambda s: s.dynamic_sampling is None, "it belongs to --dynamic-sampling"),
    Rule(("reward_model_from",), lambda s: not s.reward_model, "it belongs to --reward-model"),
    Rule(("engine_sleep",), uses_server, "--url samples elsewhere"),
    Rule(("server_weights", "api_key_env"), lambda s: not _draws_elsewhere(s), "it belongs to --url"),
    Rule(("request_timeout", "retries", "server_wait"), lambda s: not _asks_servers(s), "no server is asked: there is no --url"),
    Rule(("lr_floor",), lambda s: s.lr_schedule == "constant", "--lr-schedule constant does not fall"),
    Rule(("project",), lambda s: not s.track, "it belongs to --track"),
)


def refuse_useless(settings: Any, sources: Mapping[str, str]) -> None:
    """Refuse (`R1Error`, exit 2) flags that were given and would do nothing. sources: setting -> the layer that set it."""
    for rule in RULES:
        for name in rule.names:
            if sources.get(name) == "flag" and rule.useless(settings):
                raise R1Error(f"--{name.replace('_', '-')} does nothing: {rule.why}", hint="leave one of them out", code=Exit.USAGE)


def check_dry_run(settings: Any, context: Context | None = None, folder: str | None = None, *, scores: bool = False) -> None:
    """Refuse (`R1Error`, exit 2) in a dry run what only the launch, or the device, of the run itself would refuse.

    folder: the model's; scores: it is trained as a reward model.
    """
    if launch.wanted(dataclasses.replace(settings, dry_run=False)):
        launch.environment(settings.num_processes, settings.accelerate_config)
    from r1cli.engines.precision import resolve_dtype

    dtype = resolve_dtype(settings.dtype)
    if settings.offload:
        from r1cli.commands.strategy_check import check_strategy
        from r1cli.train.model import accelerator_for

        check_strategy(accelerator_for(dtype, settings.seed), settings)
    if context is not None and folder is not None:
        check_adapter(settings, folder, context, scores=scores)
