"""What errors of other libraries become in ours."""

import pickle

import pytest

from r1cli.errors import Exit, R1Error, first_line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n  cannot map the file:\nat 0x7f\n", "cannot map the file"),
        ("no such tensor.", "no such tensor"),
        ("", "OSError"),  # a message of ours must not end in nothing, and taking the first line of none would be a traceback
        (" \n ", "OSError"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(text: str, said: str) -> None:
    assert first_line(OSError(text)) == said


def test_an_error_travels_between_processes_with_its_hint_and_code() -> None:
    found = pickle.loads(pickle.dumps(R1Error("no `x`", hint="name it", code=Exit.USAGE)))
    assert (found.message, found.hint, found.code) == ("no `x`", "name it", 2)
