"""`r1 check`: a model, rows, or both -> what would go wrong, before anything is trained.

    r1 check golds.jsonl                          is every gold answer one that a rule can compare with?
    r1 check --model base problems.jsonl          template, end of turn, lengths, golds, what the golds earn
    r1 check --model base sft.jsonl               template, end of turn, what the answers begin and end with
    r1 check --model base pairs.jsonl             preference rows (`r1 rm`): contradictions, lengths that give it away, what is too long

Exit 1 when something fails. What each finding means is in `preflight.py`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from r1cli.commands.before_run import check_asked, check_limit, check_rewards
from r1cli.commands.gold_reward import check_gold_reward
from r1cli.commands.preference_check import check_preferences
from r1cli.commands.preflight import (
    FAIL,
    OK,
    WARN,
    Finding,
    check_closed,
    check_lengths,
    check_model,
    check_unused_tokens,
    context_of,
    places,
)
from r1cli.commands.row_check import check_rows
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.hub import model_folder
from r1cli.io.stdout import claim_stdout
from r1cli.io.stream import RowReader, read_rows
from r1cli.rewards.registry import parse_specs
from r1cli.rm_settings import RmSettings
from r1cli.row import Row, require
from r1cli.settings import CheckSettings, SftSettings
from r1cli.text.preferences import is_preference, judged

T = TypeVar("T")


def run(settings: CheckSettings, context: Context) -> None:
    """Run the command. Raises `R1Error` (exit 1) when something fails, after all findings are printed."""
    if settings.inputs or settings.model is None:
        check_limit(settings)
    reader = read_rows(settings.inputs, field_map=settings.map, limit=settings.limit, skip_bad=settings.skip_bad, say=context.console.info)
    rows = list(reader)
    if not rows and (settings.inputs or settings.model is None):  # a model alone is looked at with nothing on stdin
        raise _no_rows(reader)
    findings: list[Finding] = []
    if rows and is_preference(rows[0]):
        findings += _preference_findings(settings, context, rows, reader)
    else:
        specs = parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe)
        check_rewards(specs, settings.reward_timeout)
        asked = [row for row in rows if "answer" in row or "tests" in row or not _is_lesson(row)]
        if asked:
            check_asked(specs, asked)
        found = check_rows(specs, asked, settings.reward_timeout)
        if settings.model is not None:
            findings += _model_findings(settings, context, rows, reader, {id(row) for row in found.sound})
        findings += found.findings
    if settings.model is None:
        context.console.info("without --model: golds and rewards are looked at; template, tokens, lengths and the end of turn are not")
    if reader.bad:
        context.console.warn(f"{reader.bad} bad rows left out, the first: {reader.first_bad}")
    out = claim_stdout()
    if settings.json:
        out.write(json.dumps({"rows": len(rows), "findings": [asdict(f) for f in findings]}, ensure_ascii=False) + "\n")
    else:
        for finding in findings:
            out.write(f"{finding.level:4} {finding.name}: {finding.text}" + (f" (fix: {finding.fix})" if finding.fix else "") + "\n")
    out.flush()
    failed = [finding.name for finding in findings if finding.level == FAIL]
    if failed:
        raise R1Error(
            f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}", hint="each line above names its fix", code=Exit.FAILED
        )


def _no_rows(reader: RowReader) -> R1Error:
    left_out = f": {reader.bad} bad ones left out, the first: {reader.first_bad}" if reader.bad else ""
    return R1Error(f"no rows{left_out}", hint="name a file with rows in it", code=Exit.USAGE)


def _is_lesson(row: Row) -> bool:
    """Whether a row is for SFT: it says what the assistant answers."""
    return row.get("messages") is not None or row.get("completion") is not None


def _model_findings(settings: CheckSettings, context: Context, rows: Sequence[Row], reader: RowReader, sound: set[int]) -> list[Finding]:
    """What the model has to do with. sound: `id()` of the rows that rewards can score: the gold answers of others would earn nothing."""
    from r1cli.commands.sft_lessons import lesson_findings
    from r1cli.commands.training import end_of_turn
    from r1cli.engines.model_files import end_ids
    from r1cli.model_folder import load_tokenizer
    from r1cli.text.conversation import answers, prompt_ids, turns
    from r1cli.text.prompts import PromptRenderer
    from r1cli.train.model import check_vocabulary, load_config

    folder = model_folder(settings.model or "", settings.trust_remote_code, say=context.console.info)
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    renderer = PromptRenderer(tokenizer, template=settings.template, system=settings.system, think_prefix=settings.think_prefix)
    end_id = end_of_turn(folder, tokenizer)
    findings = check_model(tokenizer, renderer, end_id, end_ids(folder, tokenizer))
    config = load_config(folder, trust_remote_code=settings.trust_remote_code)
    context_length, beyond = context_of(config), frozenset[int]()
    try:
        beyond = check_vocabulary(folder, tokenizer, config)
    except R1Error as error:  # one finding of several here
        findings.append(Finding("vocabulary", FAIL, error.message, error.hint or ""))
    findings += check_unused_tokens(tokenizer, beyond)
    lessons, asked = [row for row in rows if _is_lesson(row)], [row for row in rows if not _is_lesson(row)]
    if lessons and asked:
        both = f"{len(lessons)} rows with answers and {len(asked)} prompts: each are looked at as what they are"
        findings.append(Finding("kinds of rows", WARN, both, "r1 sft takes the former, r1 grpo the latter"))
    if lessons:
        tokens_of = partial(turns, renderer=renderer, tokenizer=tokenizer, end_id=end_id, beyond=beyond)
        learnt = _each(lessons, reader, lambda row: (tokens_of(row), [text for _, text in answers(row)]))
        most = settings.max_length or SftSettings.max_length
        short = [(row, both) for row, both in learnt if _longest(both[0]) <= most]
        findings.append(_row_lengths([(row, _longest(ids)) for row, (ids, _) in learnt], most))
        if short:  # what training would learn of
            tokens = [turn for _, (ids, _) in short for turn in ids]
            said = [(row, text) for row, (_, texts) in short for text in texts]
            findings += lesson_findings(tokens, said, renderer, end_id, context_length)
    if asked or not lessons:  # answers without reasoning, behind a template that turns it off, are learnt as they are
        findings += check_closed(renderer)
    if asked:
        lengths = _each(asked, reader, lambda row: len(prompt_ids(row, require(row, "prompt", str, list), renderer)))
        prompts = [row for row, _ in lengths]
        limits = settings.max_prompt_length, settings.max_completion_length, context_length
        findings += check_lengths([length for _, length in lengths], *limits, prompts)
        specs = parse_specs(settings.rewards, level=settings.sandbox_level, unsafe=settings.unsafe)
        tried = [row for row in prompts if id(row) in sound]
        findings += check_gold_reward(tried, specs, settings.template, renderer.think_prefix, settings.reward_timeout)
    return findings


def _longest(learnt: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
    return max(len(prompt) + len(completion) for prompt, completion in learnt)


def _row_lengths(rows: Sequence[tuple[Row, int]], most: int) -> Finding:
    """Rows with answers against --max-length: the longer ones are left out whole, and without one that fits there is no training."""
    lengths = [length for _, length in rows]
    over = [row for row, length in rows if length > most]
    text = f"{len(rows)} rows with answers, {sum(lengths) / len(rows):.0f} tokens on average, at most {max(lengths)}"
    if not over:
        return Finding("row length", OK, text)
    level = FAIL if len(over) == len(rows) else WARN
    text += f"; {len(over)} are longer than {most} and would be left out ({places(over)})"
    return Finding("row length", level, text, f"--max-length {max(lengths)}, or leave them out")


def _each(rows: Sequence[Row], reader: RowReader, work: Callable[[Row], T]) -> list[tuple[Row, T]]:
    """The rows that `work` can be done on, with what it gave; the others are left out by `reader`. Raises `R1Error` when none is left."""
    done: list[tuple[Row, T]] = []
    for row in rows:
        try:
            done.append((row, work(row)))
        except R1Error as error:
            reader.leave_out(error)
    if not done:
        raise _no_rows(reader)
    return done


def _preference_findings(settings: CheckSettings, context: Context, rows: Sequence[Row], reader: RowReader) -> list[Finding]:
    judgements = [judgement for _, judgement in _each(rows, reader, judged)]
    findings = check_preferences(judgements)
    if settings.model is None:
        return findings
    from r1cli.commands.rm_rows import check_scoring

    folder = model_folder(settings.model, settings.trust_remote_code, say=context.console.info)
    return findings + check_scoring(
        judgements, folder, settings.template, settings.trust_remote_code, settings.max_length or RmSettings.max_length
    )
