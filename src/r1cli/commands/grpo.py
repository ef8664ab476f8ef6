"""`r1 grpo`: prompt rows, a model and rewards -> a checkpoint.

    r1 grpo --model ckpt --rewards accuracy,format -o runs/rl < problems.jsonl

The checks are here, the wiring is `grpo_run.py`, the algorithm `train/grpo.py`.
"""

import time
from collections.abc import Mapping, Sequence

from r1cli.commands import tracking
from r1cli.commands.before_run import beyond, check_asked, check_limit, check_rewards, check_sampler
from r1cli.commands.grpo_prompts import held_out_problems, held_out_rule, read_prompts, sources_of
from r1cli.commands.lora_flags import check_lora
from r1cli.commands.preference import all_rewards, check_sets, rule_rewards
from r1cli.commands.preflight import stop_or_warn
from r1cli.commands.processes import check_unused, is_first, of_process, starts_others
from r1cli.commands.row_check import check_rows
from r1cli.commands.sampling import check_address
from r1cli.commands.staged_scoring import check_stages
from r1cli.commands.stopping import check_alarms, seconds_of
from r1cli.commands.useless_flags import check_dry_run, refuse_useless
from r1cli.errors import Exit, R1Error
from r1cli.grpo_settings import ALARMS, GrpoSettings, of_loss
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.rewards.length import OverlongReward
from r1cli.row import Row
from r1cli.shared_settings import Changing

LENGTH_REWARDS = ("overlong", "length", "brevity")


def run(settings: GrpoSettings, context: Context) -> None:
    """Run the command. Flags, rewards, rows and model folder are checked before anything is loaded."""
    started = time.time()
    context = of_process(context)
    console = context.console
    settings, chosen = of_loss(settings, context.sources)
    check_flags(settings, context.sources)
    check_lora(settings, context)
    tracking.names(settings)
    check_sampler(settings)
    check_limit(settings)
    if is_first():
        check_rewards(rule_rewards(settings), settings.reward_timeout)
    if starts_others(settings, context):
        return
    if chosen:
        console.info(f"--loss {settings.loss} takes {' '.join(chosen)}, as its paper does; give the flags for other values")
    if settings.beta and settings.kl == "k1" and not settings.kl_correction:
        console.warn("--kl k1 alone holds nothing back: its gradient is zero on average; add --kl-correction, or take k2 or k3")
    for said in [*odd_lengths(settings), *beyond(settings, all_rewards(settings), context.sources)]:
        console.warn(said)
    folder = model_folder(settings.model, settings.trust_remote_code, say=console.info)
    stages, shares, readers = read_prompts(settings, context)
    everything = [row for _, rows in stages for row in rows]
    check_sets(all_rewards(settings), everything)
    check_asked(rule_rewards(settings), everything)
    stop_or_warn(check_rows(rule_rewards(settings), everything, settings.reward_timeout).findings, context)
    problems, measured = held_out_problems(settings, everything, context)
    rules, about = [rule] if (rule := held_out_rule(settings)) else [], f"--held-out {settings.held_out}"
    stop_or_warn(check_rows(rules, problems, settings.reward_timeout, about).findings, context)
    check_unused(settings, context.command)
    from r1cli.commands.grpo_preflight import (  # brings torch: not before all that a user can get wrong is checked
        longest_completion,
        usable_prompts,
    )
    from r1cli.commands.grpo_run import Prompts, train

    prompts, longest = usable_prompts(stages, settings, context, folder, readers[0])
    if problems:
        [(_, problems)], needed = usable_prompts([(0, problems)], settings, context, folder, measured or readers[0], again=True)
        longest = max(longest, needed)
    if settings.dry_run:
        check_dry_run(settings, context, folder)
        console.summary([*plan(settings, folder, prompts, shares, longest), f"would write {settings.out}"])
        return
    train(settings, context, folder, Prompts(prompts, shares), problems, readers, started, measured, longest + longest_completion(settings))


def check_flags(settings: GrpoSettings, sources: Mapping[str, str]) -> None:
    """Refuse (`R1Error`, exit 2) words and numbers that contradict each other, before anything is read."""
    specs = all_rewards(settings)
    check_stages(specs)
    check_address(settings)
    seconds_of(settings.time_limit)
    sources_of(settings)
    check_alarms(settings.stop_on, ALARMS)
    _check_judge(settings)
    high = settings.clip_low if settings.clip_high is None else settings.clip_high
    if settings.clip_cap is not None and settings.clip_cap <= 1 + high:
        raise R1Error(
            f"--clip-cap {settings.clip_cap:g} is not above 1 + --clip-high {high:g}: it would undo the clip",
            hint=f"--clip-cap {max(3.0, 2 + high):g}, or leave it out",
            code=Exit.USAGE,
        )
    if settings.importance_cap and settings.importance_floor >= settings.importance_cap:
        raise R1Error(
            f"--importance-floor {settings.importance_floor:g} is not below --importance-cap {settings.importance_cap:g}",
            hint="lower the floor",
            code=Exit.USAGE,
        )
    if 0 < settings.importance_cap < 1 or settings.importance_floor > 1:
        flag = (
            f"--importance-cap {settings.importance_cap:g}"
            if settings.importance_floor <= 1
            else f"--importance-floor {settings.importance_floor:g}"
        )
        raise R1Error(
            f"{flag} leaves out the weight 1, which every token has where sampler and trainer agree",
            hint="a cap of at least 1 (2 is the default; 0 is none), a floor of at most 1",
            code=Exit.USAGE,
        )
    if settings.rollout_lag and not (settings.importance_cap or settings.importance_floor):
        raise R1Error(
            "--rollout-lag 1 needs the importance weights, which --importance-cap 0 turns off: they correct for the older weights",
            hint="--importance-cap 2, or leave --rollout-lag out",
            code=Exit.USAGE,
        )
    if (settings.num_processes or 1) > settings.prompts_per_step:  # said here, before as many processes load their models
        raise R1Error(
            f"{settings.num_processes} processes cannot share {settings.prompts_per_step} prompts a step",
            hint="raise --prompts-per-step, or start fewer processes",
            code=Exit.USAGE,
        )
    if settings.rollout_lag and settings.engine_sleep:
        raise R1Error(
            "--rollout-lag 1 samples during the update, and --engine-sleep has the engine asleep then",
            hint="leave one of them out",
            code=Exit.USAGE,
        )
    if settings.beta and settings.kl == "k2" and settings.kl_correction:
        raise R1Error(
            "--kl k2 has the gradient of the reverse KL already: --kl-correction would make it wrong",
            hint="leave --kl-correction out, or take --kl k3",
            code=Exit.USAGE,
        )
    refuse_useless(settings, sources)


def _check_judge(settings: GrpoSettings) -> None:
    """Refuse (`R1Error`, exit 2) a reward for --dynamic-sampling that never says what is right."""
    judge, specs = settings.dynamic_sampling, rule_rewards(settings)
    begun = [spec.name for spec in specs if not spec.start]
    if judge is not None and judge not in begun:
        raise R1Error(
            f"--dynamic-sampling {judge} is none of the rewards that count from the beginning ({', '.join(begun)})",
            hint=f"add it: --rewards {judge},{settings.rewards}, or name one of them",
            code=Exit.USAGE,
        )
    kind = next((spec.source or spec.name for spec in specs if spec.name == judge and ":" not in spec.source and spec.maximum != 1.0), None)
    if kind is not None:  # 1 is `train.rollout.RIGHT`; of a user's own reward nobody knows before it is asked
        raise R1Error(
            f"--dynamic-sampling {judge} cannot tell right from wrong: right is a score of 1, and `{kind}` does not go up to 1",
            hint="name the reward that judges the answer, often accuracy",
            code=Exit.USAGE,
        )


def odd_lengths(settings: GrpoSettings) -> list[str]:
    """What is to be said of rewards for the length whose `max` does not fit the limits: a preset's, beside a limit of one's own."""
    limits = [limit for _, limit in Changing(settings.max_completion_length).switches()]
    said = []
    for spec in rule_rewards(settings):
        kind, most = spec.source or spec.name, spec.options.get("max", 0)
        free = most - OverlongReward(most, spec.options["cache"]).cache if kind == "overlong" and most else 0
        if free >= max(limits):
            said.append(
                f"reward `{spec.name}` punishes from {free} tokens on, and --max-completion-length is {max(limits)}: it is always 0"
            )
        elif kind in LENGTH_REWARDS and 0 < most < max(limits):
            said.append(f"reward `{spec.name}` has max={most}, and --max-completion-length is {max(limits)}: beyond max all get the same")
    return said


def plan(
    settings: GrpoSettings, folder: str, stages: Sequence[tuple[int, Sequence[Row]]], shares: Sequence[float] | None, longest: int
) -> list[str]:
    """What a run would do."""
    first = min(settings.updates_per_rollout, -(-settings.steps // settings.epochs_per_rollout))  # as GrpoConfig.parts
    rollout = settings.prompts_per_step * first
    joined = "".join(f", {len(rows)} more" + (f" from step {start}" if start else "") for start, rows in stages[1:])
    joined += f" (shares {' : '.join(f'{share:g}' for share in shares)})" if shares else ""
    return [
        f"would train `{folder}` for {settings.steps} steps of {settings.prompts_per_step} prompts x {settings.group_size} completions",
        f"a rollout: {rollout} prompts, {rollout * settings.group_size} completions of at most {settings.max_completion_length} tokens, "
        f"for {min(first * settings.epochs_per_rollout, settings.steps)} steps",
        f"prompts: {len(stages[0][1])}{joined}, the longest of {longest} tokens",
    ]
