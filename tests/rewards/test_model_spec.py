"""`--reward-model`: what an entry says, and what is refused."""

import pytest

from r1cli.errors import R1Error
from r1cli.rewards.model_spec import ModelOptions, parse_models


def test_an_entry_is_a_name_a_model_a_step_and_options() -> None:
    [spec] = parse_models(["helpful=runs/rm@1300:view=summary:weight=0.5:set=helpful+general:no_summary=0.2:too_long=error:tokens=512"])
    assert (spec.name, spec.source, spec.start, spec.remote) == ("helpful", "runs/rm", 1300, False)
    assert spec.options == ModelOptions(
        view="summary", weight=0.5, set=("helpful", "general"), no_summary=0.2, too_long="error", tokens=512
    )
    reward = spec.reward(7)
    assert (reward.name, reward.weight, reward.start, reward.sets, reward.maximum) == ("helpful", 0.5, 1300, ("helpful", "general"), None)


def test_an_address_keeps_its_colons_and_a_plain_entry_its_defaults() -> None:
    server, plain = parse_models(["safe=http://127.0.0.1:8000/v1:model=x:key=KEY", "b=org/name"])
    assert (server.source, server.remote, server.options.model, server.options.key) == ("http://127.0.0.1:8000/v1", True, "x", "KEY")
    assert (plain.options, plain.start, plain.reward(1300).start) == (ModelOptions(), None, 1300)


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ("runs/rm", "must be NAME=MODEL, found `runs/rm`", "helpful=FOLDER"),
        ("helpful=", "must be NAME=MODEL", "helpful=FOLDER"),
        ("a b=rm", "must be NAME=MODEL", ""),
        ("h=rm:vew=summary", "no option `vew`", "did you mean `view`?"),
        ("h=rm:view=sumary", "`view` of reward model `h` cannot be `sumary`", "did you mean `summary`?"),
        ("h=rm:weight=heavy", "`weight` of reward model `h` cannot be `heavy`", "a number"),
        ("h=rm:weight=nan", "cannot be `nan`", "a number"),
        ("h=rm:tokens=0", "cannot be `0`", "above 0"),
        ("h=rm:no_summary=2", "cannot be `2`", "0 to 1, or `whole`"),
        ("h=rm:too_long=whole", "cannot be `whole`", "0 to 1, or `error`"),
        ("h=rm:set=a++b", "cannot be `a++b`", "h:set="),
        ("h=rm:key=KEY", "is for a server", "leave out :key="),
        ("h=http://127.0.0.1:1:dtype=float32", "is for a model in this process", "leave out :dtype="),
        ("accuracy=rm", "two rewards are called `accuracy`", "a name of its own"),
    ],
)
def test_what_cannot_be_read_is_refused(entry: str, message: str, hint: str) -> None:
    with pytest.raises(R1Error) as caught:
        parse_models([entry], ["accuracy"])
    assert caught.value.code == 2
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_name_is_given_once() -> None:
    with pytest.raises(R1Error, match="two rewards are called `h`"):
        parse_models(["h=a", "h=b"])
