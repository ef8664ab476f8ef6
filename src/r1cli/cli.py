"""The commands of `r1`: their names, one line about each, two examples; a command's module is imported when it is called.

    r1 --help, r1 COMMAND --help, r1 --version, r1 --install-completion

What a command takes stands in `settings.py`, what it does in `commands/`.
"""

import functools
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from r1cli import config, flags, guard
from r1cli.errors import Exit, R1Error, nearest
from r1cli.help import ABOUT, command_help, root_help, short_help, usage
from r1cli.io.stdout import reader_left
from r1cli.report.console import Console
from r1cli.settings import COMMANDS
from r1cli.synonyms import instead

_CUT = "training on what a cut distribution gave needs the log-probabilities of the cut one, and the trainer's are of the whole"
REFUSED: dict[tuple[Any, Any], str] = {("r1 grpo", "--top-p"): _CUT, ("r1 grpo", "--top-k"): _CUT}

OF_STDIN = re.compile(r"^-(?=[=:])")


class Command(TyperCommand):
    """A command with the --help of `help.py`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`-=3` and `-:2x` of `r1 mix` are stdin with a weight or a count, as `FILE=3` is; to Typer they would be flags."""
        return super().parse_args(ctx, [OF_STDIN.sub("/dev/stdin", word) for word in args] if self.name == "mix" else args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the text for this command's name."""
        formatter.write(command_help(self.name or "") + "\n")


class Group(TyperGroup):
    """`r1` itself, with the --help of `help.py`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the text about all commands."""
        formatter.write(root_help() + "\n")


app = typer.Typer(
    name="r1",
    cls=Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(context: typer.Context, version: Annotated[bool, typer.Option("--version")] = False) -> None:
    """`r1` by itself: the versions, or the short help."""
    if version:
        typer.echo("\n".join(f"{name} {number}" for name, number in versions()))
    elif context.invoked_subcommand is None:
        typer.echo(short_help())


def versions() -> list[tuple[str, str]]:
    """(name, version) of r1, Python and the packages that decide results; "not installed" where one is missing."""
    found = [("r1", "r1cli"), ("python", ""), ("torch", "torch"), ("transformers", "transformers"), ("vllm", "vllm")]
    return [(name, _version(package) if package else platform.python_version()) for name, package in found]


def _version(package: str) -> str:
    for distribution in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def _run(name: str, given: dict[str, Any]) -> None:
    resolved = config.resolve(name, given)
    if waits_for_terminal(resolved.settings):
        _no_rows(name)
        raise typer.Exit(Exit.USAGE)
    if not guard.of_a_launch():  # else each of its processes says it
        for said in config.strange_variables(os.environ):
            Console(quiet=resolved.settings.quiet).warn(said)
    raise typer.Exit(guard.run(name, resolved.settings, resolved.sources))


def waits_for_terminal(settings: Any) -> bool:
    """True when the command would read rows from a keyboard: no input path is given and stdin is a terminal."""
    if not hasattr(settings, "inputs") or settings.inputs:
        return False
    elsewhere = any(getattr(settings, name, None) for name in ("traces", "benchmark", "list_benchmarks"))
    return not elsewhere and sys.stdin is not None and sys.stdin.isatty()


def _no_rows(name: str) -> None:
    examples = "\n".join(f"  {line}" for line in ABOUT[name].examples)
    typer.echo(f"{ABOUT[name].summary}\n\nUsage: {usage(name)}\n\n{examples}\n", err=True)
    Console().error("no rows: give a file, or pipe rows to stdin", hint=f"r1 {name} --help")


for _name, _settings in COMMANDS.items():
    _callback: Callable[..., None] = flags.callback(_settings, config.extra_params(_name), functools.partial(_run, _name))
    app.command(_name, help=ABOUT[_name].summary, cls=Command)(_callback)


def main(words: list[str] | None = None) -> int:
    """Run `r1` with these words (default: those of the process); the exit code. Mistakes in them become `error:` and `hint:`."""
    words = sys.argv[1:] if words is None else words
    command = typer.main.get_command(app)
    try:
        return int(command.main(words, prog_name="r1", standalone_mode=False) or 0)
    except typer.TyperException as error:
        return guard.failed(rewritten(error, words), Console())
    except Exception as error:
        return guard.failed(error, Console(), debug="--debug" in words)
    except SystemExit as end:  # Typer's answer to a help text whose reader has left
        return Exit.OK if reader_left() or not end.code else end.code if isinstance(end.code, int) else Exit.FAILED


def rewritten(error: typer.TyperException, words: list[str]) -> R1Error:
    """A mistake that Typer found in the command line, in the words of r1, with the nearest flag or command."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else " ".join(["r1", *words[:1]] if words[0] in COMMANDS else ["r1"])
    option = getattr(error, "option_name", None)
    if context is not None and hasattr(error, "possibilities"):
        if (path, option) in REFUSED:
            return R1Error(
                f"`{path}` has no flag `{option}`: {REFUSED[path, option]}", hint="leave it out; --temperature may be set", code=Exit.USAGE
            )
        known = [name for param in context.command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")]
        hint = instead(str(option), known)
        hint = hint if not hint.startswith("known") else f"{path} --help"
        return R1Error(f"`{path}` has no flag `{option}`", hint=hint, code=Exit.USAGE)
    if option:
        what = "needs a value" if "requires" in error.message else "is a switch: it takes no value"
        return R1Error(f"`{option}` {what}", hint=f"{path} --help", code=Exit.USAGE)
    if path == "r1" and "command" in error.message.lower():
        word = error.message.partition("'")[2].partition("'")[0]
        return R1Error(f"`r1` has no command `{word}`", hint=nearest(word, COMMANDS), code=Exit.USAGE)
    return R1Error(_lower(error.format_message()), hint=f"{path} --help", code=Exit.USAGE)


def _lower(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")
