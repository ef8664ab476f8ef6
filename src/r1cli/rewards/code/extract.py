"""The program in a completion: its last fenced block, or the body of a function that the prompt has begun (HumanEval)."""

import ast
import re
import textwrap
from dataclasses import dataclass

from r1cli.row import Row, messages_of
from r1cli.text.think import opened_by, split

LONGEST = 200_000  # characters of a program
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
LANGUAGES = {
    "": "python", "python": "python", "py": "python", "python3": "python", "python2": "python", "pypy3": "python",
    "cpp": "cpp", "c++": "cpp", "cc": "cpp", "cxx": "cpp", "cpp17": "cpp", "cpp20": "cpp", "c": "cpp",
}  # fmt: skip
_NOT_BODY = re.compile(r"^[^\s#@)\]}]", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """Source text and its language, "python" or "cpp"."""

    source: str
    language: str = "python"


def program_of(row: Row, entry_point: str | None) -> Program | None:
    """The program that the completion commits to, or None. With an entry point, what the prompt has begun is completed."""
    parts = split(row["completion"], opened_by(row.get("think_prefix")))
    if not parts.closed:
        return None
    text = parts.rest if parts.answer is None else parts.answer
    program = last_block(text)
    if program is None:
        if entry_point is None and not _is_program(textwrap.dedent(text)):
            return None
        program = Program(text if entry_point else textwrap.dedent(text))
    if len(program.source) > LONGEST or not program.source.strip():
        return None
    begun = begun_in(row) if entry_point and program.language == "python" else ""
    return Program(completed(begun, program.source, str(entry_point))) if begun else program


def last_block(text: str) -> Program | None:
    """The last fenced block in a language that can be run; blocks of other languages (output, shell) are passed over.

    A last block that never closes counts too: a stop string may have cut its end.
    """
    blocks: list[tuple[str, str]] = []
    begin: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if begin is None:
            begin = fence
        elif fence[1].startswith(begin[1]) and not fence[2]:
            blocks.append((begin[2].lower(), text[begin.end() + 1 : fence.start()]))
            begin = None
    if begin is not None:
        blocks.append((begin[2].lower(), text[begin.end() + 1 :]))
    for tag, source in reversed(blocks):
        if tag in LANGUAGES:
            return Program(textwrap.dedent(source), LANGUAGES[tag])
    return None


def begun_in(row: Row) -> str:
    """The code that the prompt begins: the prompt itself, or its last fenced block; "" when neither is Python."""
    prompt = row.get("prompt") or ""
    text = prompt if isinstance(prompt, str) else str(messages_of(prompt)[-1].get("content") or "")
    block = last_block(text)
    for source in (text, block.source if block else ""):
        if source.strip() and _parses(closed(source)):
            return source
    return ""


def completed(begun: str, source: str, entry_point: str) -> str:
    """The prompt's code with the completion: a whole definition of the entry point replaces the begun one, else it is its body."""
    if defines(textwrap.dedent(source), entry_point):
        return closed(begun) + "\n" + textwrap.dedent(source)
    first = next((line for line in source.split("\n") if line.strip()), "")
    body = source if first[:1].isspace() else textwrap.indent(source, "    ")
    whole = begun.rstrip() + "\n" + body
    end = _NOT_BODY.search(body)
    if not _parses(whole) and end:  # prose or a cut definition behind the body
        whole = begun.rstrip() + "\n" + body[: end.start()]
    return whole


def closed(begun: str) -> str:
    """Begun code as a whole program: a last function without a body gets one."""
    return begun if _parses(begun) else begun.rstrip() + "\n    pass\n"


def defines(source: str, name: str) -> bool:
    """Whether the source defines this name at its top level."""
    tree = _parse(source)
    return tree is not None and any(getattr(node, "name", None) == name for node in tree.body)


def without(source: str, name: str) -> str:
    """The source without the top-level definition of this name."""
    tree = _parse(source)
    if tree is None:
        return ""
    tree.body = [node for node in tree.body if getattr(node, "name", None) != name]
    return ast.unparse(tree)


def _is_program(text: str) -> bool:
    """Whether a text without fences is Python that does something, and not a word that happens to parse."""
    tree = _parse(text)
    return tree is not None and any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body)


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parses(source: str) -> bool:
    return _parse(source) is not None
