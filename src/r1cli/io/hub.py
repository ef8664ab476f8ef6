"""Which folder or hub name a `--model` means, checked before torch is imported.

A model is a folder with `config.json`, weights and a tokenizer; a run directory (its `final/`, or its newest whole checkpoint); or a hub
name `org/name`, which goes to transformers or vLLM as it is.
"""

import difflib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from r1cli.errors import Exit, R1Error
from r1cli.io.run_dir import final_or_latest, is_run_dir
from r1cli.io.whole_folder import is_whole
from r1cli.model_folder import read_json

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_TAKEN: list[Path] = []
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


def model_folder(name: str, trust_remote_code: bool = False, *, say: Callable[[str], None] | None = None) -> str:
    """The local folder or hub name that `name` stands for. Raises `R1Error` (exit 2) naming the files that were looked for.

    say: told when something other than the named folder is taken, and what is fetched from the hub
    """
    say = say or logging.getLogger("r1cli").warning
    path = Path(name).expanduser()
    if path.is_dir():
        of_run = is_run_dir(path)
        if of_run:
            path = _of_run(path, say)
        if of_run or is_whole(path):
            _TAKEN.append(path)
        check_model_folder(path, trust_remote_code)
        return str(path)
    if path.exists():
        raise R1Error(f"`{name}` is a file, not a model folder", hint=f"name its folder: --model {path.parent}", code=Exit.USAGE)
    if not _HUB_NAME.fullmatch(name) or path.parent.is_dir():
        raise _no_folder(name, path)
    if _offline():
        if not _in_cache(name):
            raise R1Error(
                f"model `{name}` is not in the hub cache, and HF_HUB_OFFLINE is set",
                hint="unset HF_HUB_OFFLINE, or name a local folder",
                code=Exit.ENVIRONMENT,
            )
    elif not _in_cache(name):
        say(f"fetching model `{name}` from the Hugging Face hub")
    return name


def taken() -> tuple[Path, ...]:
    """The folders that `model_folder` has taken and that were whole then: those of a run that still trains may go (`commands/gone.py`)."""
    return tuple(_TAKEN)


def check_model_folder(path: Path, trust_remote_code: bool = False) -> None:
    """Refuse a folder that transformers could not load, with the files it lacks. Raises `R1Error` (exit 2)."""
    files = {entry.name for entry in path.iterdir()}
    if "adapter_config.json" in files and "config.json" not in files:
        raise R1Error(
            f"`{path}` holds an adapter, not a model", hint="merge it first: peft's merge_and_unload, then save_pretrained", code=Exit.USAGE
        )
    if "config.json" not in files:
        raise R1Error(f"`{path}` is not a model folder: no `config.json`", hint=_what_is_there(files), code=Exit.USAGE)
    config = read_json(path / "config.json")
    _check_weights(path, files, trust_remote_code)
    if not any(name in files for name in _TOKENIZERS):
        raise R1Error(
            f"`{path}` has no tokenizer (looked for {', '.join(_TOKENIZERS)})",
            hint="save it beside the weights: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)",
            code=Exit.USAGE,
        )
    if "auto_map" in config and not trust_remote_code:
        raise R1Error(
            f"`{path}` needs code of its own to load (`auto_map` in config.json)",
            hint="read that code, then pass --trust-remote-code",
            code=Exit.USAGE,
        )


def _check_weights(path: Path, files: set[str], trust_remote_code: bool) -> None:
    if "model.safetensors" in files:
        return
    if "model.safetensors.index.json" in files:
        shards = set(read_json(path / "model.safetensors.index.json").get("weight_map", {}).values())
        lacking = sorted(shards - files)
        if lacking:
            raise R1Error(
                f"`{path}` lacks {len(lacking)} of {len(shards)} weight files, the first is `{lacking[0]}`",
                hint="copy or fetch the folder again",
                code=Exit.USAGE,
            )
        return
    if files.intersection(_PICKLES):
        if trust_remote_code:
            return
        raise R1Error(
            f"`{path}` has its weights as pickle (`pytorch_model.bin`), which can run code when loaded",
            hint="save it as safetensors (save_pretrained does), or pass --trust-remote-code if you trust it",
            code=Exit.USAGE,
        )
    if any(name.endswith(".gguf") for name in files):
        raise R1Error(
            f"`{path}` has its weights as GGUF only",
            hint="load it with transformers (gguf_file=...) and save it as safetensors",
            code=Exit.USAGE,
        )
    raise R1Error(f"`{path}` has no weights (looked for {', '.join(_WEIGHTS + _PICKLES[:1])})", hint=_what_is_there(files), code=Exit.USAGE)


def _of_run(path: Path, say: Callable[[str], None]) -> Path:
    chosen = final_or_latest(path)
    if chosen is None:
        raise R1Error(
            f"run directory `{path}` has no model yet: no whole `final/` and no whole checkpoint",
            hint="wait for its first checkpoint, or continue the run with --resume",
            code=Exit.USAGE,
        )
    if chosen.name != "final":
        say(f"`{path}` has no final model: taking its checkpoint `{chosen.name}`")
    return chosen


def _no_folder(name: str, path: Path) -> R1Error:
    folder = path.parent
    beside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.5)
    hint = "name a model folder, a run directory, or a hub name such as org/name"
    if close:
        hint = f"did you mean `{path.with_name(close[0])}`?"
    return R1Error(f"no such model folder: `{name}`", hint=hint, code=Exit.USAGE)


def _what_is_there(files: set[str]) -> str:
    shown = sorted(files)[:5]
    return ("it holds " + ", ".join(f"`{name}`" for name in shown) + (" ..." if len(files) > 5 else "")) if files else "the folder is empty"


def _offline() -> bool:
    return any(os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def _in_cache(name: str) -> bool:
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = cache / f"models--{name.replace('/', '--')}" / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())
