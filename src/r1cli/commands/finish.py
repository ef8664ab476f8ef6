"""What the row commands say and leave behind at their end: lines of the summary, and the manifest beside an output file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1cli.io import manifest
from r1cli.io.stream import RowReader, Source

_REASONS_SHOWN = 4


def dropped_lines(reasons: Counter[str]) -> list[str]:
    """One line of reasons with their counts, the most frequent first; nothing when nothing was dropped."""
    if not reasons:
        return []
    shown = [f"{count} {reason}" for reason, count in reasons.most_common(_REASONS_SHOWN)]
    rest = reasons.total() - sum(count for _, count in reasons.most_common(_REASONS_SHOWN))
    return ["dropped: " + "; ".join(shown + ([f"{rest} for other reasons"] if rest else []))]


def bad_lines(*readers: RowReader) -> list[str]:
    """One line for the bad rows that --skip-bad left out; nothing when there were none."""
    count = sum(reader.bad for reader in readers)
    first = next((reader.first_bad for reader in readers if reader.first_bad), "")
    return [f"left out {count} bad rows, the first: {first}"] if count else []


def output_lines(*outputs: str | None) -> list[str]:
    """One line that says where the files are; nothing when all rows went to stdout."""
    files = [out for out in outputs if out not in (None, "-")]
    return ["written: " + ", ".join(str(file) for file in files)] if files else []


def write_manifest(
    out: str,
    command: str,
    settings: Any,
    sources: Sequence[Source],
    outputs: Sequence[str],
    counts: Mapping[str, Any],
    started: float,
    **more: Any,
) -> None:
    """The manifest beside an output that is a plain file; nothing for stdout and devices."""
    if out == "-" or not Path(out).is_file():
        return
    manifest.write(
        out,
        command=command,
        settings=settings,
        inputs=[describe_source(source) for source in sources],
        outputs=[o for o in outputs if o != "-"],
        counts=counts,
        started=started,
        **more,
    )


def describe_source(source: Source) -> dict[str, Any]:
    """An input for a manifest: its name, rows and hash, or those of its files."""
    if len(source.files) < 2:
        return manifest.describe(source.name, source.rows, bad=source.bad)
    return {"name": source.name, "rows": source.rows, "bad": source.bad, "files": [manifest.describe(file) for file in source.files]}
