"""What --help says: about each command one line and two examples to paste, then its flags by group.

Plain text by our own hand, not Typer's boxes: importing Rich doubles the time of `r1 --help`, and docs/cli.md is made from the same lines.
"""

import shutil
import textwrap
from dataclasses import dataclass

from r1cli.config import extra_params
from r1cli.flags import GROUPS, Param, metavar, notes, params_of
from r1cli.settings import COMMANDS
from r1cli.shared_settings import RUN


@dataclass(frozen=True)
class About:
    """What --help says of a command before its flags: a summary in the imperative and two lines to paste."""

    summary: str
    examples: tuple[str, str]


ABOUT = {
    "sample": About(
        "Draw completions for prompt rows from a model.",
        (
            "r1 sample -m runs/demo/base -k 4 problems.jsonl > samples.jsonl",
            "r1 sample -m runs/grpo -n 100 problems.jsonl | r1 reject --rewards accuracy,format > kept.jsonl",
        ),
    ),
    "reject": About(
        "Score completion rows and keep those that pass.",
        (
            "r1 reject --rewards accuracy,format samples.jsonl > kept.jsonl",
            "r1 reject --per-prompt 1 --pick shortest --to sft --rejected dropped.jsonl -o sft.jsonl samples.jsonl",
        ),
    ),
    "mix": About(
        "Mix row files into one shuffled, deduplicated, decontaminated data set.",
        (
            "r1 mix kept.jsonl=3 general.jsonl=1 -o mixed.jsonl",
            "r1 mix kept.jsonl:2x general.jsonl:25% --dedupe exact --decontaminate test.jsonl -o mixed.parquet",
        ),
    ),
    "sft": About(
        "Fine-tune a model on messages or prompt + completion rows.",
        (
            "r1 sft -m runs/demo/base -o runs/cold-start worked.jsonl",
            "r1 mix kept.jsonl general.jsonl | r1 sft -m runs/demo/base -o runs/sft --lr 5e-5 --epochs 2",
        ),
    ),
    "rm": About(
        "Train a reward model on preference pairs or on safe/unsafe labels.",
        (
            "r1 rm -m runs/sft --held-out held-out.jsonl -o runs/rm-helpful pairs.jsonl",
            "r1 reject --preset r1-helpful-rm --judge runs/grpo drawn.jsonl | r1 rm -m runs/sft --preset r1-helpful-rm -o runs/helpful -",
        ),
    ),
    "grpo": About(
        "Train a model with GRPO on prompts and verifiable rewards.",
        (
            "r1 grpo -m runs/cold-start --rewards accuracy,format -o runs/grpo problems.jsonl",
            "r1 grpo -m runs/demo/base --preset r1-zero --steps 50 -o runs/zero < problems.jsonl",
        ),
    ),
    "distill": About(
        "Teach a student with a teacher's kept completions: sample, reject, sft.",
        (
            "r1 distill --teacher runs/grpo --student runs/small -k 4 -o runs/student problems.jsonl",
            "r1 distill --traces kept.jsonl --student Qwen/Qwen2.5-Math-1.5B --preset r1-distill-qwen-1.5b -o runs/student",
        ),
    ),
    "eval": About(
        "Measure a model or completion rows: pass@1, pass@k, cons@k with intervals.",
        ("r1 eval -m runs/grpo -k 4 test.jsonl", "r1 eval --json samples.jsonl | jq '.\"pass@1\"'"),
    ),
    "report": About(
        "Write one HTML page about runs and scores: curves, tables, samples.",
        ("r1 report runs/grpo scores.json -o report.html", "r1 report runs/cold-start runs/grpo --title 'cold start, then RL'"),
    ),
    "check": About(
        "Check rows, rewards and a model's template before training.",
        ("r1 check -m runs/demo/base --rewards accuracy,format problems.jsonl", "r1 check --json problems.jsonl | jq ."),
    ),
    "rewards": About("List the rewards that can be asked for.", ("r1 rewards", "r1 rewards --json | jq .")),
    "lineage": About(
        "Show how a file or a model was made, back to the raw data.", ("r1 lineage runs/sft", "r1 lineage --json mixed.jsonl | jq .sources")
    ),
}
TAIL = """Settings come from flags, then R1_* variables, then -c FILE, then --preset, then the defaults.
Exit codes: 0 done; 1 ran and failed, or an asked condition is false; 2 usage, configuration or input;
3 a missing package, GPU or server; 130 Ctrl-C; 143 SIGTERM."""
COLUMN = 30  # where help texts begin


def usage(command: str) -> str:
    """`r1 sample [OPTIONS] [INPUTS]...`"""
    inputs = [metavar(param) for param in params_of(COMMANDS[command]) if param.flag.positional]
    return " ".join(["r1", command, "[OPTIONS]", *inputs])


def spelling(param: Param) -> str:
    """`-n, --limit INT`, `    --shuffle, --no-shuffle`, `[INPUTS]...`: the left column."""
    if param.flag.positional:
        return metavar(param)
    short = f"-{param.flag.short}, " if param.flag.short else "    "
    long = f"{param.option}, --no-{param.option[2:]}" if param.negatable else param.option
    return f"{short}{long} {metavar(param)}".rstrip()


def described(param: Param) -> str:
    """The help text with what stands in brackets behind it."""
    return param.flag.help + (f" [{notes(param)}]" if notes(param) else "")


def grouped(command: str) -> dict[str, list[Param]]:
    """The parameters of a command under their headings, in the order of --help."""
    params = (*params_of(COMMANDS[command]), *extra_params(command))
    return {group: found for group in GROUPS if (found := [param for param in params if param.flag.group == group])}


def command_help(command: str, width: int | None = None) -> str:
    """The whole --help of a command."""
    about = ABOUT[command]
    blocks = [about.summary, "\n".join(["Examples:", *(f"  {line}" for line in about.examples)]), f"Usage: {usage(command)}"]
    for group, params in grouped(command).items():
        entries = [(spelling(param), described(param)) for param in params]
        if group == RUN:
            entries.append(("-h, --help", "show this text"))
        blocks.append(_section(group, entries, width))
    return "\n\n".join(blocks)


def short_help() -> str:
    """The commands, a line each, and where to read on: what `r1` alone says."""
    lines = [f"  {name:<9} {about.summary}" for name, about in ABOUT.items()]
    return "\n".join(["Usage: r1 COMMAND [OPTIONS] [INPUTS]...", "", *lines, "", "`r1 COMMAND --help` begins with two examples."])


def root_help(width: int | None = None) -> str:
    """What `r1 --help` says."""
    options = [
        ("    --version", "the versions of r1 and of what it runs on"),
        ("-h, --help", "show this text"),
        ("    --install-completion", "complete commands and flags in this shell"),
        ("    --show-completion", "print it"),
    ]
    about = "The DeepSeek-R1 recipe as shell commands: rows flow through pipes, models live in run directories."
    return "\n\n".join([about, short_help(), _section("Options", options, width), TAIL])


def _section(title: str, entries: list[tuple[str, str]], width: int | None) -> str:
    width = width or min(shutil.get_terminal_size((100, 24)).columns, 120)
    lines = [f"{title}:"]
    for left, right in entries:
        wrapped = textwrap.wrap(right, max(width - COLUMN, 30), break_on_hyphens=False)
        fits = len(left) + 4 <= COLUMN
        lines.append(f"  {left:<{COLUMN - 2}}{wrapped.pop(0)}" if fits else f"  {left}")
        lines += [" " * COLUMN + line for line in wrapped]
    return "\n".join(lines)
