"""r1 report: run directories and score files in, one HTML page out.

A folder that is no run itself stands for the runs and the scores.json in it (`r1 report runs/demo`). A run that is still being written
or was killed can be reported on: a last line that is not whole is left out, and said.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.run_dir import is_run_dir
from r1cli.io.stream import claim_stdout, missing
from r1cli.io.whole import check_new, write_text
from r1cli.report.html import RunData, page
from r1cli.row import parse
from r1cli.settings import ReportSettings


def run(settings: ReportSettings, context: Context) -> None:
    """Read everything, write the page, say where it is."""
    if not settings.inputs:
        raise R1Error("nothing to report on", hint="name run directories and score files: r1 report runs/mine scores.json", code=Exit.USAGE)
    out = check_new(settings.out, force=settings.force)
    folders, files = _expand(settings.inputs)
    names = _names(folders)
    runs = [read_run(folder, names[folder], context.console.warn) for folder in folders]
    scores = [score for path in files for score in read_scores(path)]
    title = settings.title or ", ".join(dict.fromkeys(Path(name).resolve().name for name in settings.inputs))
    write_text(out, page(title, runs, scores))
    if settings.json:
        document = {"title": title, "page": str(out), "runs": [_document(one) for one in runs], "scores": scores}
        claim_stdout().write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
    context.console.summary([f"{len(runs)} runs, {len(scores)} scores", f"written: {out}"])


def _document(one: RunData) -> dict[str, Any]:
    found = {"name": one.name, "config": dict(one.config), "metrics": list(one.metrics), "samples": len(one.samples)}
    return found | ({"held_out": dict(one.held_out)} if one.held_out else {})


def _expand(inputs: list[str]) -> tuple[list[Path], list[Path]]:
    """Run directories and score files, in the order given, each once."""
    folders: dict[Path, None] = {}
    files: dict[Path, None] = {}
    for name in inputs:
        path = Path(name)
        if not path.exists():
            raise missing(name, path)
        if path.is_file():
            files[path] = None
        elif is_run_dir(path):
            folders[path] = None
        else:
            inside = sorted((entry for entry in path.iterdir() if is_run_dir(entry)), key=_started)
            if not inside and not (path / "scores.json").is_file():
                raise R1Error(
                    f"`{name}` is not a run directory and holds none",
                    code=Exit.USAGE,
                    hint="name a folder that r1 sft, grpo or distill wrote with -o",
                )
            folders.update(dict.fromkeys(inside))
            if (path / "scores.json").is_file():
                files[path / "scores.json"] = None
    return list(folders), list(files)


def _started(folder: Path) -> tuple[float, str]:
    """When a run began: the time of its first step, which outlives copies; 0 before that."""
    path = folder / "metrics.jsonl"
    if path.is_file():
        for record in _records(path, lambda _: None):
            return float(record.get("time", 0.0)), folder.name
    return 0.0, folder.name


def _names(folders: list[Path]) -> dict[Path, str]:
    """The folder's own name, or its path where two share one."""
    own = [folder.resolve().name for folder in folders]
    return {folder: name if own.count(name) == 1 else str(folder) for folder, name in zip(folders, own, strict=True)}


def read_run(folder: Path, name: str, warn: Callable[[str], None] = lambda _: None) -> RunData:
    """What a run directory holds. Raises `R1Error` (exit 2) naming the line for a broken record; a last one that is torn is said."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    held_out = folder / "held_out.json"
    measured = json.loads(held_out.read_text("utf-8")) if held_out.is_file() else {}
    metrics, samples = _read_jsonl(folder / "metrics.jsonl", warn, "step"), _read_jsonl(folder / "samples.jsonl", warn)
    return RunData(name, config, metrics, samples, measured)


def _read_jsonl(path: Path, warn: Callable[[str], None], *needed: str) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    records = list(_records(path, warn))
    for i, record in enumerate(records, 1):
        if any(key not in record for key in needed):
            raise R1Error(f"{path}:{i}: the record has no `{needed[0]}`", code=Exit.USAGE, hint="mend or remove the line")
    return records


def _records(path: Path, warn: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """The records of whole lines. The last line of a run that is writing it right now, or was killed at it, is left out and said."""
    with path.open("rb") as lines:
        number, line = 0, next(lines, b"")
        while line:
            number, following = number + 1, next(lines, b"")
            try:
                record = _record(line, f"{path}:{number}")
            except R1Error:
                if following:
                    raise
                record = None
            if record is None:
                warn(f"`{path}`: line {number}, the last one, is torn and left out: its run is writing it, or was killed at it")
            else:
                yield record
            line = following


def _record(line: bytes, where: str) -> dict[str, Any] | None:
    """The record of a line, None for one without an end. Raises `R1Error` (exit 2) for one that is none."""
    if not line.endswith(b"\n"):
        return None
    try:
        return dict(parse(line.rstrip(b"\n").decode("utf-8"), where))
    except UnicodeDecodeError as error:
        raise R1Error(f"{where}: not UTF-8 ({error.reason})", hint="mend or remove the line", code=Exit.USAGE) from None
    except R1Error as error:
        raise R1Error(error.message, hint="mend or remove the line", code=error.code) from None


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The scores in a JSON file: one object of `r1 eval`, or a list of them. Anything else is an `R1Error` (exit 2)."""
    hint = "a score file is what r1 eval writes with --json or -o"
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise R1Error(f"`{path}` is not a score file ({error})", hint=hint, code=Exit.USAGE) from None
    scores = value if isinstance(value, list) else [value]
    for score in scores:
        known = isinstance(score, dict) and "pass@1" in score and (score["pass@1"] is not None or score.get("rewards"))
        if not known or not isinstance(score["pass@1"], int | float | None):
            raise R1Error(f"`{path}` is not a score file: it has no `pass@1`", hint=hint, code=Exit.USAGE)
    return scores
