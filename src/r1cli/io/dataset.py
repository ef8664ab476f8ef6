"""`hf:` inputs: data sets of the hub, of a local folder, or saved by `datasets.save_to_disk`, through the package `datasets`.

    hf:org/name@revision:split      hf:org/name/configuration@revision:split      hf:./folder:split

`datasets` fixes one type a column, so a field that some rows lack is null in them. For JSONL or Parquet files that r1 wrote, name the
files themselves: nothing is lost then.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error, first_line, nearest
from r1cli.io.arrow import rows_of
from r1cli.io.jsonl import Item

_HUB = re.compile(r"(?P<path>[\w.-]+(/[\w.-]+)?)(/(?P<config>[\w.-]+))?(@(?P<revision>[^:]+))?(:(?P<split>.+))?")
_BATCH_ROWS = 256


@dataclass(frozen=True)
class DataSet:
    """A parsed `hf:` name."""

    name: str
    path: str
    config: str | None = None
    revision: str | None = None
    split: str | None = None
    local: bool = False


def opener(name: str, say: Callable[[str], None] | None) -> Callable[[], Iterator[Item]]:
    """How to open an `hf:` input; the name is checked now, data are loaded when the rows are asked for."""
    spec = parse(name)
    return lambda: _rows(spec, say or logging.getLogger("r1cli").warning)


def parse(name: str) -> DataSet:
    """The parts of an `hf:` name. A local folder starts with `.`, `/` or `~` and must exist (`R1Error`, exit 2)."""
    body = name.removeprefix("hf:")
    if body.startswith((".", "/", "~")):
        path = os.path.expanduser(body)  # noqa: PTH111  a `:split` may follow, which is no part of a path
        ends = [len(path)] + [match.start() for match in re.finditer(":", path)]
        for end in ends:
            if Path(path[:end]).is_dir():
                return DataSet(name, path[:end], split=path[end + 1 :] or None, local=True)
        raise R1Error(
            f"no such folder: `{body.rpartition(':')[0] or body}`", hint="hf:./FOLDER:SPLIT reads a local data set", code=Exit.USAGE
        )
    match = _HUB.fullmatch(body)
    if match is None:
        raise R1Error(f"`{name}` does not name a data set", hint="write hf:org/name@revision:split or hf:./folder:split", code=Exit.USAGE)
    return DataSet(name, match["path"], match["config"], match["revision"], match["split"])


def _rows(spec: DataSet, say: Callable[[str], None]) -> Iterator[Item]:
    data = _load(spec, say)
    if not hasattr(data, "features"):  # several splits
        splits = list(data)
        if spec.split is None and len(splits) > 1:
            raise R1Error(
                f"`{spec.name}` has several splits: {', '.join(splits)}", hint=f"name one: {spec.name}:{splits[0]}", code=Exit.USAGE
            )
        wanted = spec.split or splits[0]
        if wanted not in data:
            raise R1Error(f"`{spec.name}` has no split `{wanted}`", hint=nearest(wanted, splits), code=Exit.USAGE)
        data = data[wanted]
    arrow = data.with_format("arrow")
    yield from rows_of(arrow.iter(batch_size=_BATCH_ROWS), data.features.arrow_schema, spec.name)


def _load(spec: DataSet, say: Callable[[str], None]) -> Any:
    import datasets

    datasets.disable_progress_bars()  # they draw on a stderr that is no terminal
    folder = Path(spec.path)
    try:
        if spec.local and ((folder / "state.json").exists() or (folder / "dataset_dict.json").exists()):
            return datasets.load_from_disk(spec.path)
        if not spec.local:
            at = f" at revision {spec.revision}" if spec.revision else ""
            say(f"fetching data set `{spec.path}`{at} from the Hugging Face hub")
        return datasets.load_dataset(spec.path, spec.config, split=spec.split, revision=spec.revision)
    except ConnectionError as error:
        raise R1Error(
            f"cannot reach `{spec.name}`: {first_line(error)}",
            hint="check the network, or read a local copy: hf:./FOLDER:SPLIT",
            code=Exit.ENVIRONMENT,
        ) from None
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise R1Error(
            f"cannot read `{spec.name}`: {first_line(error)}",
            hint="check the name, hf:org/name/configuration@revision:split; private sets need `hf auth login`",
            code=Exit.USAGE,
        ) from None
