"""Users' own reward functions: `path/to/file.py:function` or `module:function`.

How a function is called follows from its parameters:

    def f(row) -> float | None                        one row at a time
    def f(rows) -> list[float | None]                 a batch of rows
    def f(completions, **columns) -> list[...]        a batch, as TRL calls it: `prompts`, `completions`, each row field as a list, and
                                                      `completion_ids` where the rows have their tokens (`token_ids`)

Each may be `async`; the rows of a batch then wait together. The function runs in a worker process, never in the caller's; what it prints
goes to stderr. The caller only reads its source, to see how it wants to be called and that it is there.
"""

import ast
import asyncio
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from r1cli.errors import Exit, R1Error, nearest
from r1cli.rewards.reward import Option, Reward, RewardKind, Score
from r1cli.row import Row, require

TEMPLATE_HINT = "`def f(row)`, `def f(rows)` or `def f(completions, **columns)`: see docs/rewards.md"
TOKENS, OUR_TOKENS = "completion_ids", "token_ids"  # what TRL calls the tokens of completions, and our rows
OF_TRAINER = ("trainer_state", "log_extra", "log_metric", "environments")  # what else TRL's trainer passes
_NOT_COLUMNS = frozenset(("prompt", "completion", "rewards", "reward"))
ROW, BATCH, TRL = "row", "rows", "completions"


class UserReward(Reward):
    """A function of the user's. Loaded by `prepare` or the first rows, so in a worker only."""

    isolated = True

    def __init__(self, source: str, memory: float = 16.0, chat: str = "auto") -> None:
        self.name = source.rpartition(":")[2]
        self.source = source
        self.memory_gib = memory
        self.chat = chat
        self._function: Callable[..., Any] | None = None
        self._style = ""
        declared = _declared(source)
        self.batched = declared is not None and (isinstance(declared, ast.AsyncFunctionDef) or _style_of(_names(declared)) != ROW)

    def prepare(self) -> None:
        if self._function is None:
            self._function = _loaded(self.source)
            signature = inspect.signature(self._function)
            self._style = _style_of(list(signature.parameters))
            if not self._style or not (self._style == TRL or _takes_one(signature)):
                raise R1Error(f"reward `{self.source}` takes parameters that are not understood", hint=TEMPLATE_HINT, code=Exit.USAGE)

    def quick(self, row: Row) -> Any:
        require(row, "completion", str)
        return super().quick(row)

    def score(self, row: Row) -> Score:
        return self.score_batch([row])[0]

    def score_batch(self, rows: Sequence[Row]) -> list[Score]:
        self.prepare()
        if not rows:
            return []
        if self._style == ROW:
            values = asyncio.run(self._each(rows)) if inspect.iscoroutinefunction(self._function) else [self._call(row) for row in rows]
        else:
            values = self._call(rows) if self._style == BATCH else self._call_as_trl(rows)
            values = asyncio.run(_finished(values)) if inspect.isawaitable(values) else values
        return self._checked(values, rows)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        assert self._function is not None
        return self._function(*args, **kwargs)

    async def _each(self, rows: Sequence[Row]) -> list[Any]:
        """Every row at the same time, each with its own share of the deadline; a late one is 0 and counted."""

        async def one(row: Row) -> Any:
            try:
                return await asyncio.wait_for(self._call(row), self.seconds)
            except TimeoutError:
                self.late += 1
                return 0.0

        return list(await asyncio.gather(*map(one, rows)))

    def _call_as_trl(self, rows: Sequence[Row]) -> Any:
        columns: dict[str, list[Any]] = {
            "prompts": [row.get("prompt") for row in rows],
            "completions": [self._completion(row) for row in rows],
        }
        for key in dict.fromkeys(key for row in rows for key in row):
            if key not in _NOT_COLUMNS:
                columns[key] = [row.get(key) for row in rows]
        if TOKENS not in columns and all(isinstance(row.get(OUR_TOKENS), list) for row in rows):
            columns[TOKENS] = columns[OUR_TOKENS]
        parameters = inspect.signature(self._function).parameters  # type: ignore[arg-type]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            columns = {key: column for key, column in columns.items() if key in parameters}
        missing = [
            n
            for n, p in parameters.items()
            if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and n not in columns
        ]
        if missing:
            raise _no_column(self.source, missing[0], columns)
        return self._call(**columns)

    def _completion(self, row: Row) -> Any:
        """A string, or a list of one message when the prompt is a conversation, as TRL has it."""
        conversation = self.chat == "yes" or (self.chat == "auto" and isinstance(row.get("prompt"), list))
        return [{"role": "assistant", "content": row["completion"]}] if conversation else row["completion"]

    def _checked(self, values: Any, rows: Sequence[Row]) -> list[Score]:
        values = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(values, list | tuple) or len(values) != len(rows):
            got = f"{len(values)} values" if isinstance(values, list | tuple) else type(values).__name__
            raise R1Error(
                f"reward `{self.source}` gave {got} for {len(rows)} rows", hint="return one number (or None) a row", code=Exit.FAILED
            )
        return [self._number(value, row) for value, row in zip(values, rows, strict=True)]

    def _number(self, value: Any, row: Row) -> Score:
        if value is None:
            return None
        value = value.item() if hasattr(value, "item") else value
        if not isinstance(value, Real) or not math.isfinite(value):
            where = row.where or f"row `{row.get('id', '?')}`"
            raise R1Error(
                f"reward `{self.source}` gave {value!r} for {where}", hint="a reward is a finite number or None", code=Exit.FAILED
            )
        return float(value)


def check_columns(source: str, fields: Iterable[str]) -> None:
    """Refuse (`R1Error`, exit 2) rows of these fields for a function that is called as TRL does, and asks for another one. As far as its
    file says without being run: what else there is, the first rows tell.
    """
    declared = _declared(source)
    if declared is None or declared.decorator_list or _style_of(_names(declared)) != TRL:  # what a decorator makes of it, only a call tells
        return
    places, named = [*declared.args.posonlyargs, *declared.args.args], declared.args
    asked = [arg.arg for arg in places[: len(places) - len(named.defaults)]]
    asked += [arg.arg for arg, default in zip(named.kwonlyargs, named.kw_defaults, strict=True) if default is None]
    columns = {"prompts", "completions", *fields} - _NOT_COLUMNS
    columns |= {TOKENS} if OUR_TOKENS in columns else set()
    if lacking := [name for name in asked if name not in columns]:
        raise _no_column(source, lacking[0], columns)


def _no_column(source: str, name: str, columns: Iterable[str]) -> R1Error:
    if name == TOKENS or name in OF_TRAINER:
        hint = f"give it a default ({name}=None)"
        if name == TOKENS:
            hint = "use `completions`, or score rows of `r1 sample --logprobs`, which have their tokens"
        return R1Error(
            f"reward `{source}` asks for `{name}`, which TRL's trainer passes and r1 does not" + (" here" if name == TOKENS else ""),
            hint=hint,
            code=Exit.USAGE,
        )
    return R1Error(
        f"reward `{source}` asks for the column `{name}`, and no row has such a field",
        hint=f"{nearest(name, columns)}; rename a column with --map {name}=COLUMN",
        code=Exit.USAGE,
    )


def _takes_one(signature: inspect.Signature) -> bool:
    """Whether a function can be called with one value."""
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


async def _finished(awaitable: Any) -> Any:
    return await awaitable


def _style_of(names: list[str]) -> str:
    """How a function with these parameters is called: ROW, BATCH, TRL, or "" when that is not clear."""
    if TRL in names:
        return TRL
    return {"row": ROW, "rows": BATCH}.get(names[0], ROW if len(names) == 1 else "") if names else ""


def _names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def _declared(source: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The definition of the function in its file, unexecuted; None when it is made in another way. Raises `R1Error` (exit 2) when it is
    not there.
    """
    place, _, name = source.rpartition(":")
    if not place.endswith(".py"):
        return None  # finding a module may already run code of its package: that is left to the worker
    path = Path(place)
    if not path.is_file():
        raise R1Error(
            f"reward file `{place}` does not exist", hint="give the path as seen from here, then a colon and the function", code=Exit.USAGE
        )
    try:
        tree = ast.parse(path.read_bytes(), filename=place)
    except (SyntaxError, ValueError) as error:
        raise R1Error(f"reward file `{place}` is not Python: {error}", hint=f"python {place}", code=Exit.USAGE) from None
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    if name not in functions and not _assigned(tree, name):
        raise R1Error(
            f"reward file `{place}` has no function `{name}`",
            hint=nearest(name, functions) if functions else TEMPLATE_HINT,
            code=Exit.USAGE,
        )
    return None if _assigned(tree, name) else functions.get(name)


def _assigned(tree: ast.Module, name: str) -> bool:
    """Whether a name is bound at the top of a module in any way but a plain definition (import, assignment, class)."""
    return any(
        (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.alias) and (node.asname or node.name) in (name, "*"))
        or (isinstance(node, ast.ClassDef) and node.name == name)
        for node in ast.walk(tree)
    )


def _loaded(source: str) -> Callable[..., Any]:
    """Import the function. An error inside its module is the user's to mend: it is raised as an `R1Error` that quotes it."""
    place, _, name = source.rpartition(":")
    try:
        module = _module_from(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        function = getattr(module, name)
    except (Exception, SystemExit) as error:
        what = f"reward `{source}` cannot be imported: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise R1Error(
            what, hint=f"try it alone: python {place}" if place.endswith(".py") else f"is `{place}` installed, or here?", code=Exit.USAGE
        ) from error
    if not callable(function):
        raise R1Error(f"reward `{source}` is not a function", hint=TEMPLATE_HINT, code=Exit.USAGE)
    return function


def _module_from(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"reward_file_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look a module up by its name
    sys.path.append(str(path.resolve().parent))
    spec.loader.exec_module(module)
    return module


def _make(options: Mapping[str, Any]) -> Reward:
    return UserReward(options["source"], options["memory"], options["chat"])


USER = RewardKind(
    name="path/to/file.py:function",
    summary="a function of yours (or module:function), called with a row, rows, or completions and columns as TRL does",
    formula="what the function returns: a finite number, or None to count nothing",
    example="my_rewards.py:polite=0.5",
    make=_make,
    fields=("completion", "any other"),
    options=(
        Option("memory", float, 16.0, "GiB of address space its worker may use"),
        Option("chat", str, "auto", "completions as lists of messages: auto (when the prompt is one), yes, no", ("auto", "yes", "no")),
    ),
    maximum=None,
)
