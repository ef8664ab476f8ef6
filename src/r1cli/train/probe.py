"""Is what a policy computes what its model computes? Asked once, when a model is loaded, with two sequences of seven tokens.

Architectures differ in what no configuration says reliably: whether their attention is the function that was asked for and gets the
segments of packed rows, what mixes tokens beside attention, what the head's output is multiplied by, what lies between the last hidden
state and the head. The model itself says it: `model(...).logits` of each sequence alone.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from r1cli.errors import Exit, R1Error
from r1cli.train.attention import NAME
from r1cli.train.batches import MicroBatch, RowLayout, Sample, collate

PREFIX, OWN = 3, 4  # tokens
EXACT, ROUGH = 1e-3, 0.1  # largest relative distance in float32, and in a type of fewer bits
MIXED = 0.1  # what a sequence may move its neighbour by, of what the prompt of both moves it by: rounding where experts sort by batch


def own_shapes(config: Any) -> list[tuple[float, float]]:
    """What a model may multiply its logits by, and cap them softly at (0: not), according to its configuration, the likeliest first.

    Not all architectures read `logits_scaling` the same way round, or every field they have."""
    text = config.get_text_config()
    scale = (getattr(text, "logit_scale", None) or 1.0) * (getattr(text, "lm_head_multiplier", None) or 1.0)
    divisor = getattr(text, "logits_scaling", None) or 1.0
    softcap = getattr(text, "final_logit_softcapping", None) or 0.0
    return list(dict.fromkeys((value, cap) for value in (scale / divisor, scale * divisor, 1.0) for cap in (softcap, 0.0)))


@torch.no_grad()
def settle(policy: Any, temperature: float) -> None:
    """Choose whether sequences share rows and how the head is scaled, so that the log-probabilities are the model's own.

    Raises `R1Error` (exit 2) naming the architecture where no choice gives them. The weights must be whole and all of one type. Beside a
    GPU a model may have kernels for it alone; one that does not run on the CPU, where it is loaded, is taken as its configuration says.
    """
    ids_ST, ways = _sequences(policy.model), _ways(policy)
    logits_STV = _asked(policy.model, ids_ST)
    if logits_STV is None:
        next(ways)
        return
    logprobs_STV = (logits_STV[:, PREFIX - 1 : -1].float() / temperature).log_softmax(-1)
    expected_N = logprobs_STV.gather(-1, ids_ST[:, PREFIX:, None]).flatten()
    samples = [Sample(number, ids[:PREFIX], ids[PREFIX:]) for number, ids in enumerate(ids_ST.tolist())]
    shape = policy.shape
    for together in ways:
        batch = _laid_out(samples, together=together)
        nearest = torch.inf
        for scale, softcap in own_shapes(policy.model.config):
            policy.shape = replace(policy.shape, scale=scale / temperature, softcap=softcap)
            distance = _distance(_values(policy, batch), expected_N)
            if distance < nearest / 2:  # less may be rounding, and the configuration says which is likelier
                nearest, shape = distance, policy.shape
        policy.shape = shape
        if nearest <= _tolerance(policy.model) and not (together and _mixes(policy, samples)):
            return
    raise _refused(policy.model, "log-probabilities")


@torch.no_grad()
def settle_scores(policy: Any, pad_id: int) -> None:
    """The same for a reward model, whose head is one number: whether sequences share rows."""
    ids_ST, ways = _sequences(policy.model, avoid=pad_id), _ways(policy)
    scores_S1 = _asked(policy.model, ids_ST)
    if scores_S1 is None:
        next(ways)
        return
    expected_N = scores_S1.flatten()
    exact = next(policy.model.parameters()).dtype == torch.float32  # else rounding may be all that two scores differ by
    last = [False] * OWN + [True]  # the place that would predict one more token
    samples = [Sample(number, ids[:PREFIX], [*ids[PREFIX:], pad_id], trained=last) for number, ids in enumerate(ids_ST.tolist())]
    for together in ways:
        found_N = _values(policy, _laid_out(samples, together=together))
        alike = not exact or _distance(found_N, expected_N) <= _tolerance(policy.model)
        if alike and not (together and _mixes(policy, samples)):
            return
    raise _refused(policy.model, "scores")


def _ways(policy: Any) -> Iterator[bool]:
    """Whether sequences share rows, the policy set up for it: first yes, by the attention for segments, then no."""
    attention = policy.model.config._attn_implementation
    if policy.plain:
        policy.model.set_attn_implementation(NAME)
        yield True
        policy.plain = False
        policy.model.set_attn_implementation(attention)
    yield False


def _sequences(model: Any, avoid: int = -1) -> Tensor:
    """Two sequences that begin alike, [2, T]."""
    most = max(2 * OWN + PREFIX + 1, model.get_input_embeddings().num_embeddings // 2)  # tokens for images are at the end
    ids = [token for token in range(most // 9, most, max(1, most // 16)) if token != avoid][: PREFIX + 2 * OWN]
    return torch.tensor([ids[: PREFIX + OWN], [*ids[:PREFIX], *ids[PREFIX + OWN :]]])


def _asked(model: Any, ids_ST: Tensor) -> Tensor | None:
    """The model's own logits; None where it needs a GPU for them."""
    try:
        logits: Tensor = model(input_ids=ids_ST, use_cache=False).logits
    except Exception:  # of whatever kind a kernel raises that is given the CPU's memory
        if not torch.cuda.is_available():
            raise
        return None
    return logits


def _mixes(policy: Any, samples: list[Sample]) -> bool:
    """Whether the second sequence of a row follows what the first one says: rounding can hide that from `_distance`, not from this.

    The same shapes are computed each time, so that a sequence which is kept apart does not move by a bit.
    """
    first, second = samples

    before_N = _second(policy, samples)
    neighbour = replace(first, completion_ids=_others(first.completion_ids))
    asked = [replace(sample, prompt_ids=_others(sample.prompt_ids)) for sample in samples]
    by_neighbour, by_prompt = (torch.linalg.vector_norm(_second(policy, row) - before_N) for row in ([neighbour, second], asked))
    return bool(by_neighbour > MIXED * by_prompt)


def _second(policy: Any, samples: list[Sample]) -> Tensor:
    """Values of the second of two sequences in a row, without its first token, which follows the prompt at once."""
    values_N = _values(policy, _laid_out(samples, together=True)).float().chunk(2)[1]
    return values_N[1:] if len(values_N) > 1 else values_N


def _others(ids: list[int]) -> list[int]:
    return [token + 1 for token in ids]


def _laid_out(samples: list[Sample], *, together: bool) -> MicroBatch:
    rows = [RowLayout(samples[0].prompt_ids, samples)] if together else [RowLayout([], [sample]) for sample in samples]
    return collate(rows, pad_id=0)


def _values(policy: Any, batch: MicroBatch) -> Tensor:
    """What `Policy.forward` gives first, in its computation; a copy that a model of several types needs is not kept."""
    try:
        found: Tensor = policy(batch.input_ids_BT, batch.position_ids_BT, batch.marks_BT, batch.source_N, batch.target_N)[0]
    except (TypeError, AttributeError) as error:  # a part that the architecture does not have, or an argument that it does not take
        raise _refused(policy.model, "log-probabilities") from error
    policy.forget_copy()
    return found


def _distance(found_N: Tensor, expected_N: Tensor) -> float:
    """Relative, in the 2-norm; infinite where something is not a number."""
    distance = torch.linalg.vector_norm(found_N.float() - expected_N.float()) / torch.linalg.vector_norm(expected_N.float())
    return float(distance.nan_to_num(nan=torch.inf))


def _tolerance(model: Any) -> float:
    return EXACT if next(model.parameters()).dtype == torch.float32 else ROUGH


def _refused(model: Any, what: str) -> R1Error:
    return R1Error(
        f"r1 cannot train `{type(model).__name__}`: its {what} are not what r1 computes from its last hidden state",
        hint="take a model of another architecture, such as Llama, Qwen, Mistral or Gemma",
        code=Exit.USAGE,
    )
