"""What the row commands say and leave behind at their end: lines of the summary, and the manifest beside an output file."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
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
    roles: Mapping[str, Sequence[Source]] | None = None,
    **more: Any,
) -> None:
    """A manifest beside every output that is a plain file; nothing for stdout and devices.

    An input that an output has replaced has no hash: what it was is gone.
    roles: inputs that are not the rows worked on, by what they were for (`{"decontaminate": sources}`).
    """
    files = [name for name in dict.fromkeys([out, *outputs]) if name != "-" and Path(name).is_file()]
    if not files:
        return
    others = [(role, source) for role, found in (roles or {}).items() for source in found]
    with ThreadPoolExecutor(2) as pool:  # hashing does not hold the interpreter
        made = pool.map(manifest.describe, files)
        written = {Path(file).resolve() for file in files}
        read = pool.map(lambda source: describe_source(source, written), sources)
        besides = pool.map(lambda pair: {"role": pair[0], **describe_source(pair[1], written)}, others)
        described, inputs = list(made), [*read, *besides]
    for file in files:
        manifest.write(file, command=command, settings=settings, inputs=inputs, outputs=described, counts=counts, started=started, **more)


def describe_source(source: Source, written: Set[Path] = frozenset()) -> dict[str, Any]:
    """An input for a manifest: its name, rows and hash, or those of its files. written: files that the command wrote."""
    if any(file.resolve() in written for file in source.files):
        return {"name": source.name, "rows": source.rows, "bad": source.bad, "replaced": True}
    if len(source.files) < 2:
        entry = manifest.describe(source.name, source.rows, bad=source.bad)
        if "sha256" not in entry and source.files:  # a folder of one file
            entry["files"] = [manifest.describe(source.files[0])]
        return entry
    return {"name": source.name, "rows": source.rows, "bad": source.bad, "files": [manifest.describe(file) for file in source.files]}
