"""Reading `--rewards`."""

import pytest

from r1cli.errors import R1Error
from r1cli.rewards.registry import KINDS, kinds, make, parse_specs


def test_names_weights_and_words() -> None:
    specs = parse_specs("accuracy, format=0.5 ,math=boxed=2,language=1e-1")
    assert [(s.name, s.weight) for s in specs] == [("accuracy", 1.0), ("format", 0.5), ("math", 2.0), ("language", 0.1)]
    assert specs[2].options["style"] == "boxed"


def test_options_follow_colons() -> None:
    (spec,) = parse_specs("format=0.5:style=r1-zero:think=reasoning")
    assert spec.weight == 0.5
    assert spec.options == {"style": "r1-zero", "think": "reasoning", "answer": "answer"}


def test_users_functions() -> None:
    one, two = parse_specs("path/to/file.py:polite=0.5:memory=2,package.module:rude")
    assert (one.name, one.source, one.weight, one.options["memory"]) == ("polite", "path/to/file.py:polite", 0.5, 2.0)
    assert (two.name, two.source, two.weight) == ("rude", "package.module:rude", 1.0)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("acuracy", "unknown reward `acuracy`", "did you mean `accuracy`?"),
        ("", "no rewards are named", "r1 rewards"),
        ("accuracy,accuracy=2", "named twice", "once"),
        ("format=1=2", "two weights", "r1 rewards"),
        ("format=r2", "cannot be `r2`", "r1"),
        ("format:sytle=r1", "has no option `sytle`", "did you mean `style`?"),
        ("format:style", "is not an option", "option=value"),
        ("a.py:f=high", "is not a weight", "a.py:f=0.5"),
        ("a.py:f:memory=nan", "must be float", "r1 rewards"),
        ("math=nan", "the weight of reward `math` cannot be `nan`", "write math=0.5"),
    ],
)
def test_mistakes_are_named_with_what_to_do(text: str, message: str, hint: str) -> None:
    with pytest.raises(R1Error) as error:
        parse_specs(text)
    assert message in error.value.message
    assert hint in (error.value.hint or "")
    assert error.value.code == 2


@pytest.mark.parametrize("name", KINDS)
def test_every_entry_shows_itself_and_its_example_is_read(name: str) -> None:
    kind = next(k for k in kinds() if k.name == name)
    assert kind.summary and kind.formula
    specs = parse_specs(kind.example)
    assert name in [spec.source for spec in specs]
    assert make(next(s for s in specs if s.source == name)).name == name
    assert kind.mode is None or kind.mode in [o.name for o in kind.options]
