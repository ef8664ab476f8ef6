"""Writes docs/cli.md, the reference of every command, from the settings dataclasses and the texts behind --help.

python docs/generate_cli.py            write it
python docs/generate_cli.py --check    exit 1 when it is not what it should be
"""

import sys
from pathlib import Path

from r1cli.config import PRESETS, preset_names
from r1cli.errors import Exit
from r1cli.help import ABOUT, described, grouped, spelling, usage

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# The commands of `r1`

Made from the settings by `make docs`; do not edit. `r1 COMMAND --help` says the same.

Every setting comes from the first of these that has it: the flag, the variable `R1_COMMAND_SETTING` (one command) or `R1_SETTING` (all of
them), the file given with `-c`, the preset, the default. `R1_NO_PROGRESS=1` turns a switch off, and so on for every `--no-` flag. A list
in a variable is one text or a JSON array. A TOML file holds settings at its top level, for every command that reads it, and in
`[COMMAND]` tables, spelt with `_` or `-`. `-c RUN` repeats a run from its `config.json` (what it took by default gives way to a preset),
all but `--force`, `--resume`, `--dry-run`,
`--debug`, `-q`, `-v` and `--no-progress`.

stdout holds rows or the answer asked for, everything else is on stderr.

| exit code | meaning |
|---|---|
"""
MEANINGS = {
    Exit.OK: "done; also when the reader of a pipe left early (`\\| head`)",
    Exit.FAILED: "ran and failed, or an asked condition is false (`eval --min`)",
    Exit.USAGE: "wrong flags, configuration or input",
    Exit.ENVIRONMENT: "a missing package, GPU or server",
    Exit.INTERRUPTED: "Ctrl-C; finished rows and checkpoints are kept",
    Exit.TERMINATED: "SIGTERM",
}


def page() -> str:
    """The whole page."""
    codes = "".join(f"| {int(code)} | {meaning} |\n" for code, meaning in MEANINGS.items())
    return HEAD + codes + "\n" + "\n".join(section(command) for command in ABOUT) + "\n" + presets()


def section(command: str) -> str:
    """A command: summary, examples, one table of flags a group."""
    about = ABOUT[command]
    examples = "\n".join(f"    {line}" for line in about.examples)
    parts = [f"## r1 {command}\n\n{about.summary}\n\n{examples}\n\nUsage: `{usage(command)}`\n"]
    for group, params in grouped(command).items():
        rows = "\n".join(f"| `{_cell(spelling(param).strip())}` | {_cell(described(param))} |" for param in params)
        parts.append(f"| {group} | |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def presets() -> str:
    """The presets, as their files are."""
    blocks = [f"### {name}\n\n```toml\n{(PRESETS / f'{name}.toml').read_text(encoding='utf-8')}```\n" for name in preset_names()]
    return "\n".join(["## Presets\n", *blocks])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main(words: list[str]) -> int:
    """Write the page, or with --check compare it with the one that is there."""
    if words == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return Exit.OK
        sys.stderr.write("error: docs/cli.md is not what the settings say\n\nhint: make docs\n")
        return Exit.FAILED
    if words:
        sys.stderr.write("error: only --check is known\n\nhint: python docs/generate_cli.py\n")
        return Exit.USAGE
    PAGE.write_text(page(), encoding="utf-8")
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
