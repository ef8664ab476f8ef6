"""Flags: what a settings dataclass becomes on the command line, and what is refused."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from r1cli.config import extra_params
from r1cli.errors import R1Error
from r1cli.flags import bounds, convert, expected, notes, params_of
from r1cli.help import ABOUT, command_help, grouped, spelling
from r1cli.settings import COMMANDS
from r1cli.shared_settings import NAMES, Changing, Flag

FLAGS = Path(__file__).parent / "data" / "flags.txt"


@dataclass(frozen=True, kw_only=True)
class Toy:
    rate: Annotated[float, Flag("a rate", "Training", min=0.0, max=1.0)] = 0.5
    count: Annotated[int | None, Flag("a count", "Run", short="n", min=1)] = None
    shape: Annotated[str, Flag("a shape", "Run", choices=("round", "square"))] = "round"
    stop: Annotated[list[str], Flag("texts", "Run")] = field(default_factory=list)
    shuffle: Annotated[bool, Flag("shuffle", "Run")] = True
    force: Annotated[bool, Flag("force", "Run")] = False
    out: Annotated[str, Flag("a path", "Output", short="o")]


TOY = {param.name: param for param in params_of(Toy)}


def test_params_follow_the_order_of_the_groups() -> None:
    assert list(TOY) == ["out", "rate", "count", "shape", "stop", "shuffle", "force"]


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("rate", "0.25", 0.25),
        ("rate", 1, 1.0),
        ("rate", "1e-1", 0.1),
        ("count", "3", 3),
        ("count", None, None),
        ("shape", "square", "square"),
        ("stop", ["a", "b"], ["a", "b"]),
        ("stop", "a", ["a"]),
        ("shuffle", "no", False),
        ("shuffle", "TRUE", True),
        ("force", True, True),
    ],
)
def test_values_become_the_type_of_the_field(name: str, value: object, result: object) -> None:
    converted = convert(TOY[name], value, "`x`")
    assert converted == result
    assert type(converted) is type(result)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rate", "1.5", "`x` must be a number between 0 and 1, found `1.5`"),
        ("rate", "nan", "`x` must be a number between 0 and 1, found `nan`"),
        ("rate", True, "`x` must be a number between 0 and 1, found True"),
        ("rate", None, "`x` must be a number between 0 and 1, found None"),
        ("count", "0", "`x` must be a whole number of at least 1, found `0`"),
        ("count", "2.0", "`x` must be a whole number of at least 1, found `2.0`"),
        ("count", 2.0, "`x` must be a whole number of at least 1, found `2.0`"),
        ("shape", "squar", "`x` must be one of `round`, `square`, found `squar`"),
        ("stop", [1], "`x` must be a list of texts, found [1]"),
        ("stop", ["a", ""], "`x` is empty"),
        ("shuffle", "maybe", "`x` must be true or false, found `maybe`"),
        ("out", 3, "`x` must be text, found `3`"),
    ],
)
def test_values_outside_are_refused_with_what_was_expected(name: str, value: object, message: str) -> None:
    with pytest.raises(R1Error) as caught:
        convert(TOY[name], value, "`x`")
    assert caught.value.message == message
    assert caught.value.code == 2


TEXTS = (  # where "" means something, or is refused with words of its own
    "shard template system until rewards keep filters pass_rate plain judge_when chars validation lora_targets offload track project "
    "run_name time_limit stop_on dynamic_sampling title"
)


def test_an_empty_name_is_refused_in_every_command() -> None:
    """An unset variable of the shell: as a file it would be this folder, as --eval measure nothing."""
    texts = {param.name: param for kind in COMMANDS.values() for param in params_of(kind) if param.kind is str and not param.flag.choices}
    for name in NAMES:
        with pytest.raises(R1Error, match="`x` is empty") as caught:
            convert(texts[name], "", "`x`")
        assert caught.value.code == 2 and "the variable it came from" in (caught.value.hint or "")
    for name in TEXTS.split():
        assert convert(texts[name], "", "`x`") == ""
    assert {*TEXTS.split(), *NAMES} == {*texts}, "a new flag: is it a name?"


def test_a_near_miss_of_a_choice_is_named() -> None:
    with pytest.raises(R1Error) as caught:
        convert(TOY["shape"], "squar", "`--shape`")
    assert caught.value.hint == "did you mean `square`?"


def test_words_for_bounds_and_notes() -> None:
    assert (bounds(TOY["rate"]), bounds(TOY["count"]), bounds(TOY["shape"])) == ("between 0 and 1", "of at least 1", "")
    assert notes(TOY["rate"]) == "default: 0.5, between 0 and 1"
    assert (notes(TOY["out"]), notes(TOY["shuffle"]), notes(TOY["force"])) == ("required", "default: on", "")
    assert expected(TOY["stop"]) == "a list of texts"


def test_only_a_switch_that_is_on_has_a_no_form() -> None:
    assert spelling(TOY["shuffle"]).strip() == "--shuffle, --no-shuffle"
    assert spelling(TOY["force"]).strip() == "--force"
    assert spelling(TOY["count"]) == "-n, --count INT"


@pytest.mark.parametrize("command", COMMANDS)
def test_short_forms_and_names_are_unique_in_a_command(command: str) -> None:
    params = (*params_of(COMMANDS[command]), *extra_params(command))
    shorts = [param.flag.short for param in params if param.flag.short]
    assert len(shorts) == len(set(shorts))
    assert "h" not in shorts, "-h is --help"
    assert len({param.name for param in params}) == len(params)
    assert [param.name for param in params if param.flag.positional] in ([], ["inputs"]), "only input paths are positional"


def test_a_short_form_means_the_same_everywhere() -> None:
    meanings: dict[str, set[str]] = {}
    for command, settings in COMMANDS.items():
        for param in (*params_of(settings), *extra_params(command)):
            if param.flag.short:
                meanings.setdefault(param.flag.short, set()).add(param.name)
    assert meanings == {"q": {"quiet"}, "v": {"verbose"}, "n": {"limit"}, "o": {"out"}, "m": {"model"}, "k": {"samples"}, "c": {"config"}}


def test_a_field_has_one_type_in_every_command_that_has_it() -> None:
    kinds: dict[str, set[type]] = {}
    for settings in COMMANDS.values():
        for param in params_of(settings):
            kinds.setdefault(param.name, set()).add(param.kind)
    differing = {name for name, found in kinds.items() if len(found) > 1}
    assert differing <= {"keep", "max_completion_length"}, "`keep` is a condition of `reject` and a number of checkpoints elsewhere"
    assert kinds["max_completion_length"] == {int, Changing}, "a number everywhere; in `grpo` it may change at a step"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_summary_examples_and_every_flag(command: str) -> None:
    text = command_help(command, width=100)
    summary, examples, *_ = text.split("\n\n")
    assert re.fullmatch(r"[A-Z][^\n]*\.", summary), "one line, a sentence in the imperative"
    lines = examples.splitlines()
    assert lines[0] == "Examples:"
    assert len(lines) == 3
    assert all(f"r1 {command}" in line for line in lines[1:])
    for params in grouped(command).values():
        for param in params:
            assert spelling(param).strip() in text
    assert all(len(line) <= 100 for line in text.split("\n\n", 3)[3].splitlines() if not re.match(r"\s+--", line))


def test_every_command_is_described() -> None:
    assert list(ABOUT) == list(COMMANDS)


def flag_list() -> str:
    """One line a flag of every command: its spellings, what stands for the value, the notes."""
    lines = []
    for command in COMMANDS:
        for params in grouped(command).values():
            lines += [f"{command}: {spelling(param).strip()} [{notes(param)}]".replace(" []", "") for param in params]
    return "\n".join(lines) + "\n"


def test_the_flags_are_those_agreed_on() -> None:
    """A new, changed or lost flag is a decision. Refresh with: python -m tests.test_flags"""
    assert flag_list() == FLAGS.read_text(encoding="utf-8")


if __name__ == "__main__":
    FLAGS.write_text(flag_list(), encoding="utf-8")
