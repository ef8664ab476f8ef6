"""How a file or a folder was made, back to what nobody here made: a tree of manifests.

A node is what a manifest describes; its sources are the manifest's inputs and the models its settings name. An input's hash says whether
the file that is there now is the one that was read then: the history of another file is not told.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.io import manifest
from r1cli.io.stream import missing

SAME, CHANGED, GONE, UNKNOWN = "same", "changed", "gone", "unknown"
"""What became of an input: its hash is that of then, is another, it is not there, or it has no hash (a folder, a pipe, a hub name)."""
_MODELS = ("model", "teacher", "student", "judge")


@dataclass
class Node:
    """A file, folder or name. role: what it was to the command that read it. made: its manifest, None for raw data and for what is gone.

    state: what became of it since; rows, sha256: as they were then. sources: what it was made from.
    """

    name: str
    role: str = "output"
    state: str = SAME
    rows: int | None = None
    sha256: str | None = None
    made: dict[str, Any] | None = None
    sources: list["Node"] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """The node and all below it as a JSON value."""
        how = None
        if self.made is not None:
            keys = ("command", "command_line", "date", "seconds", "settings", "counts", "versions", "step")
            how = {key: self.made[key] for key in keys if key in self.made}
        return {
            "name": self.name,
            "role": self.role,
            "state": self.state,
            "rows": self.rows,
            "sha256": self.sha256,
            "made": how,
            "sources": [source.plain() for source in self.sources],
        }

    def walk(self) -> Iterator["Node"]:
        """The node and all below it."""
        yield self
        for source in self.sources:
            yield from source.walk()


def trace(name: str) -> Node:
    """The lineage of a file or folder. Raises `R1Error` (exit 2) when it is not there or its manifest cannot be read."""
    path = Path(name).expanduser()
    if not path.exists():
        raise missing(name, path)
    node = Node(name)
    if path.is_file():
        node.sha256 = manifest.sha256(path)
    made = _manifest_of(path)
    if made is not None and not _describes(made, path, node.sha256):
        node.state, made = CHANGED, None
    _fill(node, made, path, frozenset())
    return node


def _fill(node: Node, made: dict[str, Any] | None, path: Path, above: frozenset[str]) -> None:
    """Give a node its manifest and its sources. above: the paths on the way to it, so that no circle is followed."""
    node.made = made
    key = str(path.resolve())
    if made is None or key in above:
        return
    folder = Path(made.get("directory") or path.parent)
    for entry in made.get("inputs", []):
        for part in entry.get("files", [entry]):
            node.sources.append(_source(part, entry.get("role", "rows"), folder, above | {key}))
    settings = made.get("settings") or {}
    named = {source.name for source in node.sources}
    for role in _MODELS:
        model = settings.get(role)
        if isinstance(model, str) and model not in named:
            node.sources.append(_source({"name": model}, role, folder, above | {key}))


def _source(entry: dict[str, Any], role: str, folder: Path, above: frozenset[str]) -> Node:
    node = Node(entry["name"], role, UNKNOWN, entry.get("rows"), entry.get("sha256"))
    path = _found(entry["name"], folder)
    if node.sha256 is None:
        if path is not None and path.is_dir():
            _fill(node, _manifest_of(path), path, above)
        return node
    if path is None or not path.is_file():
        node.state, path = GONE, folder / Path(entry["name"]).expanduser()  # its manifest may still be there
    else:
        node.state = SAME if path.stat().st_size == entry.get("bytes") and manifest.sha256(path) == node.sha256 else CHANGED
    made = _manifest_of(path)
    if made is not None and _describes(made, path, node.sha256):
        _fill(node, made, path, above)
    return node


def _found(name: str, folder: Path) -> Path | None:
    """The path of an input by its name as it was given: from where the command ran, from here, or beside what it made."""
    for path in (folder / Path(name).expanduser(), Path(name).expanduser(), folder / Path(name).name):
        if path.exists():
            return path
    return None


def _describes(made: dict[str, Any], path: Path, sha256: str | None) -> bool:
    """Whether a manifest is about the file with this hash; one without hashes (a folder's) is about what it lies in."""
    hashes = {Path(output["name"]).name: output["sha256"] for output in made.get("outputs", []) if "sha256" in output}
    return sha256 is None or not hashes or hashes.get(path.name) == sha256


def _manifest_of(path: Path) -> dict[str, Any] | None:
    """The manifest of a file or folder; of a checkpoint and of a run that has not ended, what its run's configuration says."""
    made = manifest.read(path)
    if made is not None and not isinstance(made, dict):
        raise R1Error(f"`{manifest.path_for(path)}` is not a manifest", hint="remove it, and make again what it describes", code=Exit.USAGE)
    if not path.is_dir() or (made is not None and "inputs" in made and made.get("command") != "checkpoint"):
        return made
    for folder in (path, path.parent, path.parent.parent):
        config = folder / "config.json"
        if config.is_file():
            record = manifest.read_json(config)
            if isinstance(record, dict) and "command" in record and "settings" in record:
                settings = {name: value.get("value") if isinstance(value, dict) else value for name, value in record["settings"].items()}
                inputs = [{"name": name} for name in settings.get("inputs") or ()]
                return {
                    **record,
                    **(made or {}),
                    "command": record["command"],
                    "settings": settings,
                    "inputs": inputs,
                    "directory": record.get("directory", str(Path.cwd())),
                }
    return made
