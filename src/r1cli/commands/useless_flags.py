"""Flags that a command refuses because they would do nothing, and what a dry run refuses as the run would.

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
from r1cli.settings import EvalSettings, RejectSettings, SampleSettings
from r1cli.steps.mix import part_of


class Rule(NamedTuple):
    """Fields that do nothing when `useless(settings)` is true, and why."""

    names: tuple[str, ...]
    useless: Callable[[Any], bool]
    why: str
    hint: str = "leave one of them out"


def _draws_elsewhere(settings: Any) -> bool:
    """Whether completions come from a server. A teacher and a judge may be named by their address."""
    named = (getattr(settings, "teacher", None), getattr(settings, "judge", None))
    return uses_server(settings) or any(_is_address(model or "") for model in named)


def _asks_servers(settings: Any) -> bool:
    """Whether completions, or the scores of a reward model, come from a server."""
    models = (entry.partition("=")[2] for entry in getattr(settings, "reward_model", []))
    return _draws_elsewhere(settings) or any(map(_is_address, models))


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _unweighted(settings: Any) -> bool:
    return not (settings.importance_cap or settings.importance_floor)


def _scores_only(settings: Any) -> bool:
    """Whether the completions of `r1 eval` are there already."""
    return isinstance(settings, EvalSettings) and settings.model is None


def _loads_nothing(settings: Any) -> bool:
    """Whether a command that scores what is there has no model to do it with, but for reward models."""
    return (_scores_only(settings) or isinstance(settings, RejectSettings)) and settings.judge is None


def _no_rules(settings: Any) -> bool:
    """Whether nothing runs in reward processes. (r1 grpo measures its held-out rows by a rule in any case.)"""
    scores = isinstance(settings, SampleSettings | RejectSettings | EvalSettings)
    return scores and not settings.rewards.strip() and getattr(settings, "until", None) is None


def _gives_all(settings: Any) -> bool:
    """Whether `r1 mix` draws no part of anything."""
    return settings.validation is None and all(part_of(text).whole for text in settings.inputs)


def _picks_all(settings: Any) -> bool:
    """Whether every row of a prompt stays. (Of pairs the pick says which are made: a completion is in one only.)"""
    return not settings.per_prompt and not settings.pairs


DRAWING = "samples template system think_prefix temperature top_p top_k max_completion_length stop shuffle_choices"
LOADING = "engine max_model_len gpu_memory kv_cache_gib url api_key_env dtype"
DRAW = "--model MODEL draws completions for prompt rows"
SCORED = "completion rows are scored as they are, nothing is drawn"
UNLOADED = "no model is sampled here, there is no --judge"

RULES = (
    Rule(tuple(DRAWING.split()), _scores_only, SCORED, DRAW),
    Rule(tuple(LOADING.split()), lambda s: _scores_only(s) and _loads_nothing(s), SCORED, DRAW),
    Rule(("batch_size",), lambda s: _loads_nothing(s) and not _asks_servers(s), "no model and no server is asked for anything"),
    Rule(("trust_remote_code",), lambda s: _loads_nothing(s) and not s.reward_model, "no model is loaded"),
    Rule(tuple(LOADING.split()), _loads_nothing, UNLOADED, "--judge MODEL"),
    Rule(("reward_workers", "reward_timeout", "sandbox_level", "unsafe"), _no_rules, "--rewards names none", "--rewards accuracy"),
    Rule(("pick",), _picks_all, "every row of a prompt stays", "--per-prompt 1"),
    Rule(("similarity",), lambda s: s.dedupe != "minhash", "it belongs to --dedupe minhash", "--dedupe minhash"),
    Rule(("ngram",), lambda s: not s.decontaminate, "it belongs to --decontaminate", "--decontaminate FILE"),
    Rule(("stratify",), _gives_all, "all rows are given, no part of them is drawn", "FILE:N, FILE:25%, FILE=W or --validation 2%"),
    Rule(("clip_low",), lambda s: s.loss == "cispo", "--loss cispo has no lower clip"),
    Rule(("clip_cap",), lambda s: s.loss == "cispo", "--loss cispo caps its weight already"),
    Rule(("kl", "kl_correction", "reference_every", "reference_mix"), lambda s: not s.beta, "--beta is 0: there is no KL"),
    Rule(("reference_mix",), lambda s: not s.reference_every, "--reference-every is 0: the reference never follows the policy"),
    Rule(("importance", "importance_rule"), _unweighted, "--importance-cap 0 turns it off"),
    Rule(("gpu_memory", "kv_cache_gib"), lambda s: s.engine == "transformers", "it is vLLM's, and --engine transformers draws"),
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
                raise R1Error(f"--{name.replace('_', '-')} does nothing: {rule.why}", hint=rule.hint, code=Exit.USAGE)


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
