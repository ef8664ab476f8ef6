"""The last step of `r1 distill`: the student on prompts that were held out, as `r1 eval` measures it."""

import hashlib
from dataclasses import fields
from pathlib import Path

from r1cli.commands.artefacts import Artefacts, hashes
from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io import manifest
from r1cli.io.stream import read_rows
from r1cli.row import Row, require
from r1cli.settings import DistillSettings, EvalSettings
from r1cli.text.question import prompt_text

SHARED = (
    "engine",
    "max_model_len",
    "gpu_memory",
    "kv_cache_gib",
    "batch_size",
    "dtype",
    "trust_remote_code",
    "template",
    "system",
    "think_prefix",
    "max_completion_length",
    "stop",
    "rewards",
    "reward_workers",
    "reward_timeout",
    "sandbox_level",
    "unsafe",
    "shuffle_choices",
    "seed",
    "progress",
    "quiet",
    "verbose",
    "debug",
)


def held_out(file: str) -> frozenset[bytes]:
    """The prompts of the evaluation file, as hashes of their words. Raises `R1Error` (exit 2) when it has none."""
    found = frozenset(question_hash(row) for row in read_rows([file]) if require(row, "prompt", str, list) is not None)
    if not found:
        raise R1Error(f"--eval: `{file}` has no rows", hint="give prompt rows with an `answer`", code=Exit.USAGE)
    return found


def question_hash(row: Row) -> bytes:
    """The same for prompts that differ in blanks and case only."""
    words = " ".join(prompt_text(row).lower().split())
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def evaluate(settings: DistillSettings, context: Context) -> None:
    """Draw, score and print; reused when the student and the file are those of an earlier attempt.

    Sampling is the paper's for every evaluation (temperature 0.6, top_p 0.95), whatever the teacher was sampled with.
    """
    from accelerate.utils.memory import clear_device_cache

    from r1cli.commands import eval as evaluation

    assert settings.eval is not None
    made = Artefacts(Path(settings.out), settings, context.console.warn)
    student = manifest.path_for(Path(settings.out) / "final")
    shared = {name: getattr(settings, name) for name in SHARED}
    facts = {
        "eval": hashes([settings.eval]),
        "student": hashes([student]),
        "samples": settings.eval_samples,
        **{name: shared[name] for name in ("rewards", "template", "system", "think_prefix", "max_completion_length", "seed")},
    }
    if made.changes("scores.json", facts) == []:
        context.console.info(f"distill: `{settings.out}/scores.json` is there and is of this student")
        return
    shared["engine"] = "auto" if settings.engine == "server" else settings.engine  # the teacher's; the student is drawn from here
    known = {field.name for field in fields(EvalSettings)}
    asked = EvalSettings(
        **{name: value for name, value in shared.items() if name in known},
        inputs=[settings.eval],
        model=str(Path(settings.out) / "final"),
        samples=settings.eval_samples,
        force=True,
        rows=str(Path(settings.out) / "eval.jsonl"),
        out=str(Path(settings.out) / "scores.json"),
    )
    clear_device_cache(garbage_collection=True)  # what training has left on the device is the engine's room
    evaluation.run(asked, Context("eval", {}, context.console))
    made.note("scores.json", facts, {}, [settings.eval], model=asked.model)
