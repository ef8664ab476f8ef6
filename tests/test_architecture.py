"""The shape of the code: who may import whom, what is imported when, and how long things may be.

The table in docs/architecture.md is the rule; it is read here, so that the page and the code cannot drift apart.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1cli.guard import MODULES
from r1cli.help import ABOUT
from r1cli.settings import COMMANDS

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "r1cli"
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = {
    "torch",
    "triton",
    "transformers",
    "vllm",
    "datasets",
    "accelerate",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "sympy",
    "math_verify",
    "latex2sympy2_extended",
    "langdetect",
    "zstandard",
    "matplotlib",
    "peft",
}
HEAVY_AT_TOP = {
    "train": {"torch", "transformers", "accelerate", "safetensors"},
    "engines": {"torch", "transformers"},
    "layers": {"torch", "triton"},
}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}
LONGEST_FILE, LONGEST_FUNCTION = 300, 60


def room_of(path: Path) -> str:
    """The room a file belongs to: its folder, or its own name at the top."""
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else path.stem


def allowed() -> dict[str, set[str]]:
    """Room -> what it may import of r1cli, from the page: rooms, or single modules as `io.stdout`. "everything" is {"*"}."""
    table: dict[str, set[str]] = {}
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 3 or not cells[0].startswith("`"):
            continue
        rooms = [name.removesuffix(".py").removesuffix("/") for name in re.findall(r"`([^`]+)`", cells[0])]
        words = {word.strip().strip("`") for word in re.split("[,;]", cells[2])} - {"torch", "commands on call"}
        if "each other" in words:
            words = words - {"each other"} | set(rooms)
        for room in rooms:
            table[room] = {"*"} if "everything" in words else words | {room}
    return table


ALLOWED = allowed()


def imports(path: Path, at_top: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of the imports of a file, those for type checkers left out; with `at_top` only those that run at import."""
    package = ("r1cli", *path.relative_to(SOURCE).parts[:-1])
    for node in _import_statements(ast.parse(path.read_text(encoding="utf-8")), at_top):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        else:
            start = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{name.name}") for name in node.names)


def _import_statements(node: ast.AST, at_top: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif not _skipped(child, at_top):
            yield from _import_statements(child, at_top)


def _skipped(node: ast.AST, at_top: bool) -> bool:
    for_type_checkers = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return for_type_checkers or (at_top and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def may(room: str, module: str) -> bool:
    """Whether a file of this room may import `r1cli.x.y...` (given without the package's name)."""
    rules = ALLOWED[room]
    target, _, rest = module.partition(".")
    return "*" in rules or target in rules or f"{target}.{rest.partition('.')[0]}" in rules


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_imports_follow_the_table(path: Path) -> None:
    room = room_of(path)
    if path == SOURCE / "__init__.py":
        return
    assert room in ALLOWED, f"docs/architecture.md has no line about `{room}`"
    ours = [(line, name.removeprefix("r1cli.")) for line, name in imports(path) if name.startswith("r1cli.")]
    wrong = [f"line {line}: {room} imports {name}" for line, name in ours if not may(room, name)]
    assert not wrong, f"docs/architecture.md does not allow: {wrong}"


def test_nothing_heavy_is_imported_at_the_top() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} {name}"
        for path in FILES
        for line, name in imports(path, at_top=True)
        if name.partition(".")[0] in HEAVY - HEAVY_AT_TOP.get(room_of(path), set())
    ]
    assert not wrong


def test_only_train_engines_and_layers_know_torch() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in FILES
        for line, name in imports(path)
        if name.partition(".")[0] == "torch" and room_of(path) not in ("train", "engines", "layers")
    ]
    assert not wrong


def test_click_belongs_to_typer() -> None:
    wrong = [f"{path.relative_to(SOURCE)}:{line}" for path in FILES for line, name in imports(path) if "click" in name]
    assert not wrong


def test_files_fit_in_a_head() -> None:
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}


def test_functions_fit_on_a_screen() -> None:
    long = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION:
                long.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}")
    assert not long


def test_files_are_named_after_what_is_in_them() -> None:
    assert not [str(path.relative_to(SOURCE)) for path in FILES if path.stem in FORBIDDEN_NAMES]


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in FILES if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not silent


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_file_and_its_place_in_the_documentation(command: str) -> None:
    module = SOURCE / "commands" / f"{MODULES.get(command, command)}.py"
    functions = {node.name: node for node in ast.parse(module.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
    assert [argument.arg for argument in functions["run"].args.args] == ["settings", "context"]
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert f"\n## r1 {command}\n" in page
    assert all(line in page for line in ABOUT[command].examples)


def test_the_reference_of_the_commands_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "generate_cli.py"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
