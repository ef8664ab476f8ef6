"""Reading a Hugging Face model folder that may be damaged, incomplete or in need of something: errors that name it, and the way out."""

import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1cli.errors import Exit, R1Error, first_line

FETCH_AGAIN = "copy or fetch the folder again"
_WAYS_OUT = {  # words of transformers' errors about files that are whole
    "trust_remote_code": "it brings code of its own: read that, then add --trust-remote-code",
    "sentencepiece": "pip install sentencepiece tiktoken, or put the model's tokenizer.json into the folder",
}


@contextmanager
def loading(folder: str | Path, hint: str = FETCH_AGAIN, part: str = "") -> Iterator[None]:
    """Around reading a model folder: files that are torn, missing or of another model are an `R1Error` (exit 2) that names the folder.

    hint: the way out, unless the error itself tells another. part: which part of the folder, for the message.
    """
    try:
        yield
    except Exception as error:
        if not _of_files(error) and "ignore_mismatched_sizes" not in str(error):
            raise
        what, why = f"{part} of `{folder}`" if part else f"`{folder}`", first_line(error)
        if not _of_files(error):
            why = "its weights have other shapes than its config.json says"
        if no_memory(error):
            raise R1Error(
                f"{what} cannot be loaded: the machine has no memory for it ({why})",
                hint="end what else runs on it, or take a machine with more memory",
                code=Exit.ENVIRONMENT,
            ) from error
        hint = next((way for word, way in _WAYS_OUT.items() if word in str(error)), hint)
        raise R1Error(f"{what} cannot be loaded: {why}", hint=hint, code=Exit.USAGE) from error


def no_memory(error: Exception) -> bool:
    """Whether a file could not be mapped for want of memory, which is no fault of the file."""
    return "annot allocate memory" in str(error) or getattr(error, "errno", None) == errno.ENOMEM


def _of_files(error: Exception) -> bool:
    from safetensors import SafetensorError

    return isinstance(error, (SafetensorError, OSError, ValueError, KeyError)) or type(error) is Exception  # the last: of `tokenizers`


def load_tokenizer(folder: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder. Raises `R1Error` (exit 2) for one that cannot be read."""
    from transformers import AutoTokenizer

    with loading(folder, part="the tokenizer"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def fingerprint(folder: str | Path) -> str:
    """The hash of a folder's weights by a part of them: names and sizes of the safetensors files, and 64 KiB at 16 places of each."""
    found = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.safetensors")):
        size = file.stat().st_size
        found.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as data:
            for place in range(16):
                data.seek(max(0, size - 65536) * place // 15)
                found.update(data.read(65536))
    return found.hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object of a model folder. Raises `R1Error` (exit 2) for a file that is damaged."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise R1Error(f"`{file}` cannot be read: {error}", hint=FETCH_AGAIN, code=Exit.USAGE) from None
    if not isinstance(value, dict):
        raise R1Error(f"`{file}` is not a JSON object", hint=FETCH_AGAIN, code=Exit.USAGE)
    return value
