"""Judging programs in every form of tests, with the sandbox of this machine."""

import json
import os
import signal
import threading
from contextlib import suppress
from shutil import which
from typing import Any

import pytest

from r1cli.errors import Exit, R1Error
from r1cli.rewards.code.judge import Local
from r1cli.rewards.code.levels import available, required
from r1cli.rewards.code.reward import CodeReward
from r1cli.rewards.code.sandbox import Level, Limits, Sandbox
from r1cli.rewards.reward import UNDECIDED
from r1cli.row import Row
from tests.contract.test_orphans import children_of
from tests.rewards.code.conftest import Judge

SECOND = "def second(xs):\n    return sorted(xs)[1]"
WRONG = "def second(xs):\n    return xs[1]"


def test_assert_lists(judge: Judge) -> None:
    tests = ["assert second([3, 1, 2]) == 2", "assert second([1, 2]) == 2", "assert second([5, 5, 9]) == 5"]
    assert judge(SECOND, tests).passed == 3
    assert (judge(WRONG, tests).passed, judge(WRONG, tests).total) == (2, 3)
    assert judge("def other(): pass", tests).failures == {"crash": 3}
    assert judge("def second(xs) return 1", tests).passed == 0


def test_asserts_with_computed_parts_and_set_up_code(judge: Judge) -> None:
    source = "class Node:\n    def __init__(self, v):\n        self.v, self.left = v, None\n"
    source += "def depth(n):\n    return 1 + depth(n.left) if n else 0"
    fields = {"test_setup_code": "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)", "test_imports": ["import math"]}
    tests = ["assert depth(root) == math.factorial(3) - 3", "assert depth(root.left) == 2", "assert root.left.v == 2"]
    tests += ["assert depth(None) == 0"]
    assert judge(source, tests, **fields).passed == 4
    assert judge(source.replace("1 +", "2 +"), tests, **fields).passed == 2
    assert judge("def depth(n): return 2", tests, **fields).passed == 0


def test_check_functions(judge: Judge) -> None:
    tests = "def check(candidate):\n    import random\n    for n in range(1, 20):\n        xs = random.sample(range(99), n + 1)\n"
    tests += "        assert candidate(list(xs)) == sorted(xs)[1]\n"
    assert judge(SECOND, tests, entry_point="second").passed == 1
    assert judge(WRONG, tests, entry_point="second").failures == {"wrong": 1}
    plain = "def check(candidate):\n    assert candidate([1, 2]) == 2\n    assert candidate([2, 1]) == 2, 'why'\n    assert True, 'said'\n"
    assert judge(WRONG, plain, entry_point="second").passed == 1
    assert judge(WRONG, plain, entry_point="second").total == 2


def test_a_body_that_completes_the_prompt() -> None:
    prompt = 'from typing import List\n\ndef second(xs: List[int]) -> int:\n    """The second smallest."""\n'
    tests = "def check(candidate):\n    assert candidate([3, 1, 2]) == 2\n"
    row = Row({"id": 1, "prompt": prompt, "test": tests, "entry_point": "second"})
    reward = CodeReward(Local(available(), Limits(), 30.0))
    for completion in (
        "    return sorted(xs)[1]\n",
        "    return sorted(xs)[1]\n\nThis sorts the list: simple.",
        "```python\nreturn sorted(xs)[1]\n```",
        "```python\ndef second(xs: List[int]) -> int:\n    return sorted(xs)[1]\n```",
        "<think>\n    return 0\n</think>\n```python\n    return sorted(xs)[1]\n```",
    ):
        assert reward.score(row.with_fields(completion=completion)) == 1.0, completion
    assert reward.score(row.with_fields(completion="    return xs[1]\n")) == 0.0


@pytest.mark.parametrize(
    "tests",
    [
        {"inputs": ["2\n3\n", "1\n1\n"], "outputs": ["5\n", "2"]},
        {"input": ["2\n3\n", "1\n1\n"], "output": ["5", "2"]},
        json.dumps({"inputs": [["2", "3"], ["1", "1"]], "outputs": [["5"], ["2"]]}),
        [{"input": "2\n3", "output": "5", "testtype": "stdin"}, {"input": "1\n1", "output": "2", "testtype": "stdin"}],
    ],
)
def test_stdin_and_stdout(judge: Judge, tests: Any) -> None:
    assert judge("print(int(input()) + int(input()))", tests).passed == 2
    assert judge("print(5)", tests).passed == 1
    assert judge("print(int(input()) - int(input()))", tests).passed == 0


@pytest.mark.parametrize(
    ("tests", "fields"),
    [
        ({"fn_name": "pairs", "inputs": [[[1, 2], 2], [[], 0]], "outputs": [[[1, 2], [2, 4]], []]}, {}),
        ([{"input": "[1, 2]\n2", "output": "[[1, 2], [2, 4]]", "testtype": "functional"},
          {"input": "[]\n0", "output": "[]", "testtype": "functional"}], {"metadata": '{"func_name": "pairs"}'}),
        ({"fn_name": "pairs", "inputs": [[[1, 2], 2], [[], 0]], "outputs": [[[[1, 2], [2, 4]]], [[]]]}, {}),
    ],
)  # fmt: skip
def test_named_functions(judge: Judge, tests: Any, fields: dict[str, Any]) -> None:
    body = "(self, xs, k):\n        return [(x, x * k) for x in xs]"
    assert judge(f"class Solution:\n    def pairs{body}", tests, **fields).passed == 2
    assert judge("def pairs(xs, k):\n    return [(x, x * k) for x in xs]", tests, **fields).passed == 2
    assert judge("def pairs(xs, k):\n    return [(x, x * k) for x in xs][:1]", tests, **fields).passed == 1


@pytest.mark.skipif(which("g++") is None, reason="g++ is not installed")
def test_cpp(judge: Judge) -> None:
    tests = {"inputs": ["2 3\n", "10 -4\n"], "outputs": ["5", "6"]}
    source = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a {} b << std::endl; }"
    assert judge(source.replace("{} b", "+ b"), tests, tag="cpp").passed == 2
    assert judge(source.replace("{} b", "- b"), tests, tag="c++").passed == 0
    assert judge("int main() { return 0 }", tests, tag="cpp").failures == {"compile": 2}
    hang = "#include <unistd.h>\nint main() { fork(); for (;;) {} }"
    assert judge(hang, tests, tag="cpp", seconds=0.5).failures == {"timeout": 2}


@pytest.mark.parametrize(
    "tag", ["python", pytest.param("cpp", marks=pytest.mark.skipif(which("g++") is None, reason="g++ is not installed"))]
)
def test_sigterm_to_every_process_of_a_job_changes_no_verdict(judge: Judge, tag: str) -> None:
    """Slurm and systemd signal the sandboxed processes too: interpreter, program, compiler. None of them may count as crashed."""
    ended, sent = threading.Event(), []

    def signal_all() -> None:
        while not ended.wait(0.01):
            for pid in children_of(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                    sent.append(pid)

    sender = threading.Thread(target=signal_all)
    sender.start()
    try:
        if tag == "cpp":
            source = "#include <iostream>\nint main() { int a; std::cin >> a; std::cout << a + 1; }"
            assert judge(source, {"inputs": ["1"], "outputs": ["2"]}, tag="cpp").passed == 1
        else:
            assert judge("import time\ntime.sleep(0.5)\nprint(int(input()) + 1)", {"inputs": ["1"], "outputs": ["2"]}).passed == 1
            assert judge("import time\ndef f(x):\n    time.sleep(0.5)\n    return x", ["assert f(3) == 3"]).passed == 1
    finally:
        ended.set()
        sender.join()
    assert len(sent) > 10


def test_values_that_change_in_place_or_keep_their_kind(judge: Judge) -> None:
    tests = ["xs = [3, 1]\nassert put(xs) is None\nassert xs == [1, 3]"]
    assert judge("def put(xs):\n    xs.sort()", tests).passed == 1
    wanted = ("{(1, 2): {3}}", "b'x'", "2**80", "(1, [2])", "1j")
    kinds = [f"assert kind({n}) == {value}" for n, value in enumerate(wanted)]
    source = "from collections import OrderedDict\ndef kind(n):\n    return [OrderedDict({(1, 2): {3}}), b'x', 2**80, (1, [2]), 1j][n]"
    assert judge(source, kinds).passed == 5
    assert judge(source.replace("(1, [2])", "[1, [2]]"), kinds).passed == 4


def test_an_object_without_a_truth_value_fails_the_test_that_asks_for_it(judge: Judge) -> None:
    source = "class Array:\n    def __bool__(self):\n        raise ValueError('ambiguous')\n\ndef f():\n    return Array()\n"
    assert judge(source, ["assert f()", "assert not f()", "x = f()\nassert x", "x = f()\nassert not x"]).passed == 0
    assert judge(source.replace("raise ValueError('ambiguous')", "return True"), ["assert f()", "x = f()\nassert x"]).passed == 2


def test_types_may_be_arguments_and_functions_are_refused_aloud(judge: Judge) -> None:
    source = "def only(xs, kind):\n    return [x for x in xs if isinstance(x, kind)]"
    assert judge(source, ["assert only([1, 'a'], str) == ['a']", "assert only([1, 'a'], int) == ['a']"]).passed == 1
    with pytest.raises(R1Error, match="pass a function"):
        judge("def apply(f, x):\n    return f(x)", ["assert apply(lambda x: x + 1, 1) == 2"])


def test_a_program_that_dies_in_one_test_is_started_again_for_the_next(judge: Judge) -> None:
    tests = ["assert f(0) == 0", "assert f(1) == 1", "assert f(2) == 2"]
    verdict = judge("import os\ndef f(n):\n    return os._exit(0) if n == 1 else n", tests)
    assert (verdict.passed, verdict.failures) == (2, {"crash": 1})


def test_the_score_is_all_or_the_share(sandbox: Sandbox) -> None:
    row = Row({"id": 1, "prompt": "", "tests": ["assert f(0) == 0", "assert f(1) == 0"], "completion": "```\ndef f(n): return n\n```"})
    assert CodeReward(Local(sandbox, Limits(), 30.0), fraction=True).score(row) == 0.5
    assert CodeReward(Local(sandbox, Limits(), 30.0)).score(row) == 0.0


def test_what_can_be_told_without_running_is_told_at_once() -> None:
    class Never:
        def judge(self, program: Any, suite: Any, stop_early: bool) -> Any:
            raise NotImplementedError

    reward = CodeReward(Never())
    row = Row({"id": 1, "prompt": "", "tests": ["assert f(0) == 0"], "completion": "I cannot."})
    assert reward.quick(row) == 0.0
    assert reward.quick(row.with_fields(completion="```python\ndef f(n): return n\n```")) is UNDECIDED
    assert reward.quick(row.with_fields(completion="<think>```python\ndef f(n): return n\n```")) == 0.0
    assert reward.quick(row.with_fields(tests=None)) is None
    for tests in ([], [1], "assert (", "{", {"inputs": [1], "outputs": []}, "def check(c): pass", 7):
        with pytest.raises(R1Error, match="row `1`") as error:
            reward.quick(row.with_fields(tests=tests))
        assert error.value.code == Exit.USAGE


def test_below_the_minimum_level_nothing_runs_unless_unsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = Sandbox(Level.LIMITS)
    monkeypatch.setattr("r1cli.rewards.code.levels.available", lambda: weak)
    with pytest.raises(R1Error, match="below the minimum `confined`") as error:
        required()
    assert error.value.code == Exit.ENVIRONMENT
    assert required(unsafe=True) == weak
    assert required(Level.LIMITS) == weak


def test_namespaces_are_entered_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1cli.rewards.code.levels.available", lambda: Sandbox(Level.NAMESPACES))
    assert required().level == Level.CONFINED
    assert required(Level.NAMESPACES).level == Level.NAMESPACES
