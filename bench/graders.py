"""Other people's graders of mathematics, as their users call them: (name, package) -> a function from a gold and a response to a verdict.

    pip install math-verify                                    Math-Verify
    pip install --no-deps tinker-cookbook pylatexenc           PRM800K's grader, which tinker-cookbook ships
    pip install --no-deps verl trl                             verl's two uses, TRL's `accuracy_reward`

Only the file that grades is run; the packages around it (torch, ray, ...) are not imported and need not be there. A grader whose package is
missing is left out, and said. Golds stand between dollars where a grader parses LaTeX. PRM800K's grader compares two answers and has no
rule for where one stands: it is given the box that its own `extract_boxed` finds, else what our extraction finds, so that it is not
counted wrong for completions without a box.
"""

import importlib
import sys
import types
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from r1cli.text.answers import last_answer

Grader = Callable[[str, str], bool]


def _module(package: str, name: str) -> Any:
    """A module of an installed package, without running the packages it is in. Raises `ImportError` when it cannot be had."""
    try:
        found = distribution(package)
    except PackageNotFoundError as missing:
        raise ImportError(package) from missing
    parents = name.split(".")[:-1]
    for n in range(len(parents)):
        parent = ".".join(parents[: n + 1])
        if parent not in sys.modules:
            hollow = types.ModuleType(parent)
            hollow.__path__ = [str(found.locate_file(parent.replace(".", "/")))]
            sys.modules[parent] = hollow
    return importlib.import_module(name)


def _in_dollars(gold: str) -> str:
    return gold if "$" in gold or "\\boxed" in gold else f"${gold}$"


def math_verify() -> Grader:
    """Math-Verify with its defaults, the gold parsed each time."""
    from math_verify import parse, verify

    return lambda gold, response: bool(verify(parse(_in_dollars(gold)), parse(response)))


def verl_math_verify() -> Grader:
    """verl's `math_verify.compute_score` without its process pool: what a process of that pool runs."""
    grade = _module("verl", "verl.utils.reward_score.math_verify")._verify_in_subprocess
    return lambda gold, response: bool(grade(f"\\boxed{{{gold}}}", response))


def verl_dapo() -> Grader:
    """verl's `math_dapo.compute_score`: normalised strings."""
    score = _module("verl", "verl.utils.reward_score.math_dapo").compute_score
    return lambda gold, response: bool(score(response, gold)["acc"])


def prm800k() -> Grader:
    """PRM800K's grader in the copy of tinker-cookbook."""
    grading = _module("tinker-cookbook", "tinker_cookbook.recipes.math_rl.math_grading")

    def grade(gold: str, response: str) -> bool:
        try:
            answer = grading.extract_boxed(response)
        except ValueError:
            answer = last_answer(response)
        return answer is not None and bool(grading.grade_answer(answer, gold))

    return grade


def trl_accuracy() -> Grader:
    """TRL's `accuracy_reward`; a gold that it skips counts as not rewarded."""
    reward = _module("trl", "trl.rewards.accuracy_rewards").accuracy_reward
    return lambda gold, response: reward([[{"content": response}]], [_in_dollars(gold)])[0] == 1.0


GRADERS: dict[str, tuple[str, Callable[[], Grader]]] = {
    "Math-Verify, default": ("math-verify", math_verify),
    "verl, math_verify": ("verl", verl_math_verify),
    "verl, math_dapo": ("verl", verl_dapo),
    "PRM800K (tinker-cookbook)": ("tinker-cookbook", prm800k),
    "TRL accuracy_reward": ("trl", trl_accuracy),
}


def installed(say: Callable[[str], object]) -> dict[str, Grader]:
    """The graders whose packages are here, under their names with the version; `say` is told of the others."""
    found = {}
    for name, (package, make) in GRADERS.items():
        try:
            found[f"{name} {distribution(package).version}"] = make()
        except (ImportError, PackageNotFoundError) as missing:
            say(f"{name}: left out, {missing.name or missing} is not installed\n")
    return found
