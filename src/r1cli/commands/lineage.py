"""`r1 lineage`: how a file, a run or a model was made, back to the raw data, by the manifests that lie beside them.

r1 lineage runs/sft
runs/sft  made by r1 sft, 2026-01-20
│  r1 sft -m base -o runs/sft mixed.jsonl
├─ mixed.jsonl  1000 rows, made by r1 mix, 2026-01-20
...
"""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.guard import Context
from r1cli.io.lineage import CHANGED, GONE, Node, trace
from r1cli.io.stream import claim_stdout
from r1cli.settings import LineageSettings

_SAID = {CHANGED: "CHANGED since", GONE: "GONE"}


def run(settings: LineageSettings, context: Context) -> None:
    """Run the command. With `check`, an input that is gone or has changed is an `R1Error` (exit 1) after the tree is printed."""
    if not settings.inputs:
        raise R1Error("no file to tell about", hint="r1 lineage FILE, or a run directory", code=Exit.USAGE)
    nodes = [trace(name) for name in settings.inputs]
    out = claim_stdout()
    if settings.json:
        found = [node.plain() for node in nodes]
        out.write(json.dumps(found[0] if len(found) == 1 else found, ensure_ascii=False, default=str) + "\n")
    else:
        for node in nodes:
            out.write("".join(f"{line}\n" for line in _tree(node)))
    out.flush()
    lost = [node.name for root in nodes for node in root.walk() if node.state in (CHANGED, GONE)]
    if lost and settings.check:
        raise R1Error(
            f"{len(lost)} of the files are gone or have changed since: {', '.join(f'`{name}`' for name in lost[:5])}",
            hint="what is shown below them, and what was made from them, can no longer be made again",
            code=Exit.FAILED,
        )


def _tree(node: Node, first: str = "", rest: str = "") -> Iterator[str]:
    """The lines of a node and of all below it. first, rest: what stands before its own line, and before those below."""
    yield first + _line(node)
    if node.made is not None and node.made.get("command_line"):
        bar = "│  " if node.sources else "   "
        yield f"{rest}{bar}{_command(node.made)}"
    for number, source in enumerate(node.sources, 1):
        last = number == len(node.sources)
        yield from _tree(source, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


def _line(node: Node) -> str:
    facts = []
    if node.role not in ("rows", "output"):
        facts.append(node.role)
    if node.rows is not None:
        facts.append(f"{node.rows} rows")
    if node.sha256:
        facts.append(f"sha256 {node.sha256[:12]}")
    if node.state in _SAID:
        facts.append(_SAID[node.state])
    if node.made is None:
        facts.append("a pipe" if node.name == "stdin" else "no manifest" if node.role == "output" else "raw")
    else:
        counts = node.made.get("counts") or {}
        size = f", {counts['in']} in, {counts['out']} out" if isinstance(counts, dict) and {"in", "out"} <= counts.keys() else ""
        date = str(node.made["date"])[:10] if "date" in node.made else "not finished"
        facts.append(f"made by r1 {node.made['command']}, {date}{size}")
    return f"{node.name}  {', '.join(facts)}"


def _command(made: dict[str, Any]) -> str:
    return shlex.join(["r1", *map(str, made["command_line"][1:])])
