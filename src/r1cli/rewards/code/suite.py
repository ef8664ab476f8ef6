"""The tests of a row, in the forms that public data sets have, as one suite.

    ["assert f(1) == 2", ...]                                        MBPP; with test_setup_code, test_imports
    "def check(candidate): ..."  and entry_point                     HumanEval (field `tests`, or its own `test`)
    {"inputs": [...], "outputs": [...], "fn_name"?: "f"}             APPS, TACO, also as a JSON string
    {"input": [...], "output": [...]}                                CodeContests
    [{"input": ..., "output": ..., "testtype"?: "functional"}, ...]  LiveCodeBench, also as a JSON string; with fn_name or
                                                                     metadata.func_name when functional

Asserts of the form `f(literals) == literal` become calls whose values the judge compares itself; all other test code is run by an examiner
process (`inside/examine.py`).
"""

import ast
import builtins
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from r1cli.errors import Exit, R1Error
from r1cli.rewards.code.extract import begun_in, closed, without
from r1cli.row import Row

_BUILTINS = frozenset(dir(builtins))
TRUE, EQUAL, IS = "true", "equal", "is"


@dataclass(frozen=True)
class Run:
    """A program run as a script: its standard input and the output that is expected."""

    stdin: str
    stdout: str


@dataclass(frozen=True)
class Call:
    """A call with plain arguments.

    how: EQUAL as Python compares, IS (for True, False, None), TRUE (truth alone), "json" (a tuple is a list). wrapped: the expected value
    may stand in a list of its own (APPS).
    """

    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    expected: Any
    how: str = EQUAL
    method: bool = False
    wrapped: bool = False


@dataclass(frozen=True)
class Script:
    """Test code for the examiner. See `inside/examine.py` for the fields."""

    tests: list[str]
    setup: str = ""
    after: str = ""
    names: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    entry: str | None = None


@dataclass(frozen=True)
class Suite:
    """What a row's program must pass: runs, or calls, or one script."""

    runs: list[Run] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    script: Script | None = None
    entry_point: str | None = None

    @property
    def size(self) -> int:
        """Number of tests."""
        return len(self.runs) + len(self.calls) + (len(self.script.tests) if self.script else 0)


def suite_of(row: Row) -> Suite:
    """The suite of a row. Raises `R1Error` (exit 2), naming the row, when its tests are missing, empty or in no known form."""
    tests = row.get("tests", row.get("test"))
    if isinstance(tests, str) and tests.lstrip()[:1] in ("{", "["):
        try:
            tests = json.loads(tests)
        except ValueError as error:
            raise _bad(row, f"its tests are not valid JSON ({error})") from None
    if isinstance(tests, str):
        suite = _from_code(row, tests)
    elif isinstance(tests, dict):
        suite = _from_pairs(row, tests)
    elif isinstance(tests, list) and all(isinstance(test, str) for test in tests):
        suite = _from_asserts(row, tests)
    elif isinstance(tests, list) and all(isinstance(test, dict) and {"input", "output"} <= test.keys() for test in tests):
        kinds = {test.get("testtype", "stdin") for test in tests}
        functional = kinds == {"functional"}
        pairs = {"inputs": [test["input"] for test in tests], "outputs": [test["output"] for test in tests]}
        suite = _from_pairs(row, {**pairs, "fn_name": _function(row)} if functional else pairs)
    else:
        raise _bad(row, "it has no field `tests` in a form that is known")
    if not suite.size:
        raise _bad(row, "it has no tests")
    return suite


def _from_pairs(row: Row, tests: dict[str, Any]) -> Suite:
    inputs, outputs = tests.get("inputs", tests.get("input")), tests.get("outputs", tests.get("output"))
    if not (isinstance(inputs, list) and isinstance(outputs, list) and len(inputs) == len(outputs)):
        raise _bad(row, "its tests need as many `outputs` as `inputs`, both lists")
    name = tests.get("fn_name") or row.get("fn_name")
    if not name:
        return Suite(runs=[Run(_text(given), _text(wanted)) for given, wanted in zip(inputs, outputs, strict=True)])
    expected = [_json(wanted) for wanted in outputs]
    wrapped = all(isinstance(wanted, list) and len(wanted) == 1 for wanted in expected)  # APPS puts every value into a list
    calls = [
        Call(str(name), _arguments(given), {}, wanted, "json", method=True, wrapped=wrapped)
        for given, wanted in zip(inputs, expected, strict=True)
    ]
    return Suite(calls=calls)


def _function(row: Row) -> Any:
    metadata = row.get("metadata") or {}
    if isinstance(metadata, str):
        metadata = _json(metadata)
    name = row.get("fn_name") or (metadata.get("func_name") if isinstance(metadata, dict) else None)
    if not name:
        raise _bad(row, "its tests are functional, but neither `fn_name` nor `metadata` names the function")
    return name


def _text(value: Any) -> str:
    """Standard input or output: text, or lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(value: Any) -> Any:
    """A value that may be written as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _arguments(given: Any) -> list[Any]:
    """The arguments of a call: a list, or JSON values a line (LiveCodeBench)."""
    if isinstance(given, str):
        return [_json(line) for line in given.split("\n")]
    return given if isinstance(given, list) else [given]


def _from_code(row: Row, tests: str) -> Suite:
    entry = row.get("entry_point")
    tree = _parse(row, tests)
    check = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    if check is None:
        return _from_asserts(row, [ast.unparse(node) for node in tree.body] if _only_asserts(tree.body) else [tests])
    if not isinstance(entry, str):
        raise _bad(row, "its tests are a `check` function, but `entry_point` does not name what it checks")
    candidate = check.args.args[0].arg if check.args.args else ""
    calls = [_call(node, {candidate: entry, entry: entry}) for node in check.body if not _says_nothing(node)]
    if all(calls) and calls:
        return Suite(calls=[call for call in calls if call], entry_point=entry)
    begun = begun_in(row)
    setup = without(closed(begun), entry) if begun else ""
    return Suite(script=Script([tests], setup=setup, names=[entry], entry=entry), entry_point=entry)


def _from_asserts(row: Row, tests: list[str]) -> Suite:
    trees = [_parse(row, test) for test in tests]
    setup = str(row.get("test_setup_code") or "")
    imports = row.get("test_imports") or []
    imports = "\n".join(imports) if isinstance(imports, list) else str(imports)
    names = _names_under_test(trees, _parse(row, setup), _parse(row, imports))
    if not (setup.strip() or imports.strip()):
        own = {name: name for name in names}
        calls = [_call(tree.body[0], own) if len(tree.body) == 1 else None for tree in trees]
        if all(calls):
            return Suite(calls=[call for call in calls if call])
    nodes = [node for tree in (*trees, _parse(row, setup)) for node in ast.walk(tree)]
    used = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    modules = sorted(name for name in used if name in sys.stdlib_module_names and name not in imports)
    return Suite(script=Script(tests, setup=imports, after=setup, names=[name for name in names if name not in modules], modules=modules))


def _names_under_test(trees: list[ast.Module], *given: ast.Module) -> list[str]:
    """Names that the tests read and nothing but the program can define.

    A name of a built-in is the program's only when the tests call nothing else: a program may not replace `abs` under an assert.
    """
    bound = {name for tree in (*trees, *given) for name in _bound(tree)}
    read = {n.id for tree in (*trees, *given) for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    names = sorted(name for name in read - bound if name not in _BUILTINS)
    if names:
        return names
    calls = [node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted({node.id for node in calls if isinstance(node, ast.Name)} - bound)


def _bound(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]


def _only_asserts(body: list[ast.stmt]) -> bool:
    return all(isinstance(node, ast.Assert) for node in body)


def _says_nothing(node: ast.stmt) -> bool:
    """`assert True, "..."` and docstrings."""
    value = node.test if isinstance(node, ast.Assert) else node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and (value.value is True or isinstance(value.value, str))


def _call(node: ast.stmt, names: dict[str, str]) -> Call | None:
    """`assert f(literals) == literal`, `... is True`, `assert f(...)` or `assert not f(...)` as a call; None for any other statement."""
    if not isinstance(node, ast.Assert):
        return None
    test, expected, how = node.test, True, TRUE
    try:
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.Eq, ast.Is)):
            expected, how = ast.literal_eval(test.comparators[0]), EQUAL if isinstance(test.ops[0], ast.Eq) else IS
            test = test.left
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, expected = test.operand, False
        if not (isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id in names):
            return None
        if how == IS and not (expected is None or isinstance(expected, bool)):
            return None
        args = [ast.literal_eval(arg) for arg in test.args]
        kwargs = {keyword.arg: ast.literal_eval(keyword.value) for keyword in test.keywords if keyword.arg}
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return Call(names[test.func.id], args, kwargs, expected, how) if len(kwargs) == len(test.keywords) else None


def _parse(row: Row, source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _bad(row, f"its tests are not valid Python ({error})") from None


def _bad(row: Row, what: str) -> R1Error:
    where = f"{row.where}: " if row.where else ""
    return R1Error(f"{where}row `{row.get('id')}`: {what}", hint="docs/code-rewards.md lists the forms of `tests`", code=Exit.USAGE)
