"""The pure parts of the code reward: finding programs, comparing outputs, plain data, reading tests."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1cli.rewards.code.compare import same_output, same_value
from r1cli.rewards.code.extract import completed, last_block, program_of
from r1cli.rewards.code.inside import plain, seccomp
from r1cli.rewards.code.judge import Opaque, reply_failure
from r1cli.rewards.code.suite import EQUAL, IS, TRUE, Call, suite_of
from r1cli.row import Row


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("  1 2  \n3\n\n", "1 2\n3", True),
        ("1.0 2", "1 2.00", True),
        ("1e2", "100", True),
        ("0.1", "0.10000000000000000001", False),
        ("1\n2", "1\n2\n3", False),
        ("1\n2\n3", "1\n2", False),
        ("", "1", False),
        ("", "", True),
        ("2 1", "1 2", False),
        ("1 1 2", "1 2", False),
        ("yes", "YES", False),
        ("a  b", "a b", False),
        ("nan", "nan", True),
        ("1_0", "10", False),
        ("1e999999", "1e999998", False),
        ("1e9999999", "1", False),
    ],
)
def test_outputs_are_compared_line_by_line(output: str, expected: str, same: bool) -> None:
    assert same_output(output, expected) is same


def test_values_are_compared_whole() -> None:
    assert same_value((1, (2, 3)), [1, [2, 3]])
    assert not same_value([1, 2], [1, 2, 3])
    assert not same_value([1, 2, 3], [1, 2])
    assert not same_value("1", 1)


BLOCK = "```python\nprint(1)\n```"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (BLOCK, "print(1)\n"),
        (f"{BLOCK}\nBetter:\n```py\nprint(2)\n```\nIt prints\n```text\n2\n```", "print(2)\n"),
        ("~~~\nprint(3)\n~~~", "print(3)\n"),
        ("1. So:\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("```python\nprint(4)", "print(4)"),
        ("no code", None),
        ("```bash\nls\n```", None),
    ],
)
def test_the_last_block_that_can_run(text: str, source: str | None) -> None:
    block = last_block(text)
    assert (block.source if block else None) == source


def test_code_in_the_reasoning_does_not_count() -> None:
    assert program_of(Row({"completion": f"<think>{BLOCK}</think> no"}), None) is None
    assert program_of(Row({"completion": f"<think>{BLOCK}"}), None) is None
    answered = program_of(Row({"completion": f"<think>x</think>{BLOCK}<answer>```\nprint(5)\n```</answer>"}), None)
    assert answered is not None and answered.source == "print(5)\n"
    bare = program_of(Row({"completion": "print(6)"}), None)
    assert bare is not None and bare.source == "print(6)"


def test_a_body_completes_what_the_prompt_began() -> None:
    begun = "import math\n\ndef area(r):\n    '''Area.'''\n"
    for body in ("    return math.pi * r * r\n", "return math.pi * r * r", "    return math.pi * r * r\n\nPi r squared, as asked."):
        names: dict[str, Any] = {}
        exec(completed(begun, body, "area"), names)
        assert names["area"](1) == pytest.approx(3.14159, abs=1e-5)


def never(value: Any) -> list[Any]:
    return ["o", 7, True]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner) | st.sets(st.integers()),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(values)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    back = plain.decode(plain.encode(value, never), Opaque)
    assert back == value and type(back) is type(value)


def test_what_is_no_plain_data_becomes_a_reference_or_its_base() -> None:
    class Yes(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    assert plain.encode(object(), never) == ["o", 7, True]
    assert type(plain.decode(plain.encode(Yes(3), never), Opaque)) is int
    wrong: list[Any] = [{}, [], ["q", 1], ["i", "zz"], ["s", ["l"]], ["d", [1]], ["b", 3]]
    for bad in wrong:
        with pytest.raises(plain.NotPlain):
            plain.decode(bad, Opaque)


@pytest.mark.parametrize(
    ("reply", "how", "expected", "failure"),
    [
        ({"value": 3}, EQUAL, 3, None),
        ({"value": ["o", 1, True]}, EQUAL, 3, "wrong"),
        ({"value": ["o", 1, True]}, TRUE, True, None),
        ({"value": ["o", 1, False]}, TRUE, True, "wrong"),
        ({"value": 1}, IS, True, "wrong"),
        ({"value": ["t", 1]}, EQUAL, [1], "wrong"),
        ({"value": ["t", 1]}, "json", [1], None),
        ({"error": "ValueError"}, EQUAL, None, "crash"),
        ({"value": {}}, EQUAL, {}, "wrong"),
        ("passed", EQUAL, 3, "crash"),
        ({"value": float("nan")}, EQUAL, 3, "wrong"),
    ],
)
def test_replies_are_judged_as_data(reply: Any, how: str, expected: Any, failure: str | None) -> None:
    assert reply_failure(reply, Call("f", [], {}, expected, how)) == failure


def test_plain_asserts_become_calls_and_others_a_script() -> None:
    suite = suite_of(Row({"tests": ["assert f(1, k=[2]) == (3, -4)", "assert not f(0)"]}))
    assert suite.calls == [Call("f", [1], {"k": [2]}, (3, -4), EQUAL), Call("f", [0], {}, False, TRUE)]
    script = suite_of(Row({"tests": ["assert round(f(1), 2) == 3", "assert f(sys.maxsize) == 0"]})).script
    assert script is not None and (script.names, script.modules) == (["f"], ["sys"])
    shadowing = suite_of(Row({"tests": ["assert sum(10, 15) == 25"]}))
    assert [call.name for call in shadowing.calls] == ["sum"]


def test_filters_are_built_for_both_machines() -> None:
    for machine in seccomp.MACHINES:
        locked, spawning = seccomp.build(machine, 1, False, False), seccomp.build(machine, 1, True, True)
        assert len(locked) % 8 == 0 and len(locked) > len(spawning)
        assert len(locked) // 8 < 4096  # the kernel's limit
