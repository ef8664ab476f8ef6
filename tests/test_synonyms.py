"""Flags of other trainers: every one leads to a flag that there is."""

import pytest

from r1cli.flags import params_of
from r1cli.settings import COMMANDS
from r1cli.synonyms import OURS, instead

FLAGS = {command: [param.option for param in params_of(settings)] for command, settings in COMMANDS.items()}


@pytest.mark.parametrize("theirs", OURS)
def test_it_leads_somewhere_and_is_no_flag_of_the_command_it_leads_to(theirs: str) -> None:
    hints = {command: instead(f"--{theirs}", flags) for command, flags in FLAGS.items() if f"--{theirs}" not in flags}
    led = {command: hint.partition("`")[2].rstrip("`") for command, hint in hints.items() if hint.startswith("here it is")}
    assert led and all(flag in FLAGS[command] for command, flag in led.items())
    reached = {flag.removeprefix("--") for flag in led.values()}
    assert reached == set(OURS[theirs].split())


def test_a_setting_of_a_file_is_spelt_as_a_setting() -> None:
    assert instead("learning_rate", ["lr", "epochs"]) == "here it is `lr`"
    assert instead("epoch", ["lr", "epochs"]) == "did you mean `epochs`?"
    assert instead("--max-steps", FLAGS["sft"]) == "here it is `--epochs`"
    assert instead("--max-steps", FLAGS["grpo"]) == "here it is `--steps`"
