"""What can be known to be wrong with preference rows before a reward model is trained on them. `r1 check` prints it, `r1 rm` warns."""

import json
from collections.abc import Sequence

from r1cli.commands.preflight import FAIL, OK, WARN, Finding
from r1cli.text.preferences import Judged

UNEVEN = 0.65  # share of pairs whose longer reply is chosen (or rejected) from which on length alone is a good guess
ENOUGH = 20  # pairs; of fewer a share says little
RARE = 0.05  # share of a label below which it is worth a word


def check_preferences(rows: Sequence[Judged]) -> list[Finding]:
    """Findings about rows that are all pairs, all labelled, or a mixture (which fails)."""
    pairs, labelled = [row for row in rows if row.is_pair], [row for row in rows if not row.is_pair]
    if pairs and labelled:
        first = labelled[0].row
        text = f"{len(pairs)} pairs and {len(labelled)} labelled completions (the first: {first.where} row `{first.get('id')}`)"
        return [Finding("kinds", FAIL, text, "train two models, one on each kind")]
    return _pairs(pairs) if pairs else _labels(labelled) if labelled else []


def _pairs(rows: Sequence[Judged]) -> list[Finding]:
    prompts = {row.prompt_key() for row in rows}
    found = [Finding("pairs", OK, f"{len(rows)} pairs about {len(prompts)} prompts")]
    texts = [(row.prompt_key(), row.replies[0].text, row.replies[1].text) for row in rows]
    same = sum(chosen == rejected for _, chosen, rejected in texts)
    if same:
        found.append(Finding("equal sides", WARN, f"{same} pairs have the same text twice and say nothing", "they are left out"))
    known = set(texts)
    swapped = sum(chosen != rejected and (prompt, rejected, chosen) in known for prompt, chosen, rejected in texts)
    if swapped:
        found.append(Finding("contradictions", WARN, f"{swapped} pairs are there with the sides swapped too", "remove one of each two"))
    longer = sum(len(chosen) > len(rejected) for _, chosen, rejected in texts)
    shorter = sum(len(chosen) < len(rejected) for _, chosen, rejected in texts)
    word, count = ("longer", longer) if longer >= shorter else ("shorter", shorter)
    text = f"the {word} reply is the chosen one in {count / len(rows):.0%} of the pairs"
    if len(rows) >= ENOUGH and count > UNEVEN * len(rows):
        text += ": a model can learn length instead"
        found.append(Finding("lengths", WARN, text, "r1 reject --pairs --balance-lengths; look at the length figures of --held-out"))
    else:
        found.append(Finding("lengths", OK, text))
    return found


def _labels(rows: Sequence[Judged]) -> list[Finding]:
    good = sum(row.target for row in rows)
    text = f"{len(rows)} completions, {good / len(rows):.0%} labelled 1 (safe)"
    if good in (0, len(rows)):
        return [Finding("labels", FAIL, text, "add completions with the other label: there is nothing to tell apart")]
    if min(good, len(rows) - good) < RARE * len(rows):
        return [Finding("labels", WARN, f"{text}: hardly any of the other", "accuracy says little then; look at auc")]
    return [Finding("labels", OK, text)]


def content_of(row: Judged) -> str:
    """What makes two rows the same."""
    return json.dumps([row.prompt_key(), [reply.text for reply in row.replies], row.target if not row.is_pair else None])
