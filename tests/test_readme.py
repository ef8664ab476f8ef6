"""Every command line of the README names a command that exists, with flags it has."""

import re
import shlex
from pathlib import Path

import pytest

from r1cli.config import extra_params
from r1cli.flags import params_of
from r1cli.settings import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
LINES = [line.strip() for line in README.splitlines() if line.startswith("    r1 ")]
TARGETS = re.findall(r"^    make ([\w-]+)", README, re.MULTILINE)


def flags(command: str) -> set[str]:
    found = set()
    for param in (*params_of(COMMANDS[command]), *extra_params(command)):
        found |= {param.option, f"-{param.flag.short}" if param.flag.short else param.option, f"--no-{param.option[2:]}"}
    return found


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_uses_flags_that_exist(line: str) -> None:
    for part in line.split(" | "):
        words = shlex.split(part, comments=True)
        if words[0] == "r1":
            unknown = {word for word in words[2:] if re.match(r"--?[a-z]", word)} - flags(words[1])
            assert not unknown


def test_there_are_lines_to_check() -> None:
    assert len(LINES) >= 8 and {"setup", "demo", "test"} <= set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_a_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
