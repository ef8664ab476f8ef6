r"""Properties of the verifier: a gold is itself in every dressing, a changed one never is, and no text breaks it."""

import time
from fractions import Fraction

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from r1cli.rewards.math.judge import judge

WIDE = str.maketrans("0123456789-.,()[]=+/", "０１２３４５６７８９－．，（）［］＝＋／")

integers = st.integers(-(10**15), 10**15).map(str)
decimals = st.tuples(st.integers(-9999, 9999), st.integers(1, 9999)).map(lambda p: f"{p[0]}.{p[1]:04d}")
fractions = st.tuples(st.integers(-999, 999), st.integers(2, 999)).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}")
roots = st.tuples(st.integers(2, 9), st.integers(2, 99)).map(lambda p: rf"{p[0]}\sqrt{{{p[1]}}}")
values = st.one_of(integers, decimals, fractions, roots)
tuples = st.lists(values, min_size=2, max_size=4).map(lambda v: f"({', '.join(v)})")
sets = st.lists(values, min_size=2, max_size=4, unique=True).map(lambda v: rf"\{{{', '.join(v)}\}}")
polynomials = st.tuples(st.integers(2, 9), st.integers(-9, -1), st.integers(1, 99)).map(lambda c: f"{c[0]}x^2{c[1]}x+{c[2]}")
golds = st.one_of(values, tuples, sets, polynomials)

DRESSINGS = {
    "plain": lambda a: a,
    "blanks": lambda a: f"  {a} ",
    "thin blanks": lambda a: rf"\,{a}\;",
    "full stop": lambda a: f"{a}.",
    "bold": lambda a: rf"\mathbf{{{a}}}",
    "braces": lambda a: f"{{{a}}}",
    "display": lambda a: rf"\displaystyle {a}",
    "dollars": lambda a: f"${a}$",
    "parentheses of LaTeX": lambda a: rf"\({a}\)",
    "named": lambda a: f"n = {a}",
    "big brackets": lambda a: a.replace("(", r"\left(").replace(")", r"\right)").replace(r"\{", r"\left\{").replace(r"\}", r"\right\}"),
    "display fractions": lambda a: a.replace(r"\frac", r"\dfrac"),
    "minus signs": lambda a: a.replace("-", "−"),
    "zero width": lambda a: f"\u200b{a}\ufeff",
    "doubled backslashes": lambda a: a.replace("\\", "\\\\") if "{" not in a[:2] else a,
}
PLACES = {
    "boxed": lambda a: rf"So the answer is $\boxed{{{a}}}$.",
    "after thoughts": lambda a: f"<think>\nIt is 17, or \\boxed{{0}}.\n</think>\n\n\\boxed{{{a}}}",
    "tags": lambda a: f"<think>hm</think>\n<answer>{a}</answer>",
    "second thoughts": lambda a: f"\\boxed{{77}}. Wait, that is wrong. The answer is \\boxed{{{a}}}",
}


@given(gold=golds, worn=st.lists(st.sampled_from(sorted(DRESSINGS)), max_size=3, unique=True), place=st.sampled_from(sorted(PLACES)))
@settings(max_examples=400, deadline=None)
def test_a_gold_is_itself_in_every_dressing(gold: str, worn: list[str], place: str) -> None:
    assume(not ("named" in worn and worn[-1] != "named"))  # `n =` stands outside of everything
    answer = gold
    for name in worn:
        answer = DRESSINGS[name](answer)
    assert judge(PLACES[place](answer), gold).verdict is True


@given(gold=st.one_of(integers, decimals, st.tuples(integers, integers).map(lambda v: f"({v[0]}, {v[1]})")))
@settings(max_examples=200, deadline=None)
def test_full_width_is_the_same_text(gold: str) -> None:
    assert judge(rf"\boxed{{{gold.translate(WIDE)}}}", gold).verdict is True


@given(gold=st.one_of(integers, decimals, fractions), data=st.data())
@settings(max_examples=500, deadline=None)
@example(gold="100", data=None)
def test_a_changed_number_is_never_right(gold: str, data: st.DataObject | None) -> None:
    places = [n for n, c in enumerate(gold) if c.isdigit()]
    for place in places if data is None else [data.draw(st.sampled_from(places))]:
        digit = "7" if data is None else data.draw(st.sampled_from("0123456789"))
        changed = gold[:place] + digit + gold[place + 1 :]
        longer = (
            f"{gold}+1" if gold.endswith("}") else f"{gold}1" if "." not in gold else f"1{gold}"
        )  # 1.0001 is met by 1.00011, which rounds to it
        for answer in (changed, longer, gold[1:] if gold.startswith("-") else f"-{gold}"):
            if _value(answer) != _value(gold):
                assert judge(rf"\boxed{{{answer}}}", gold).verdict is not True, answer


def _value(text: str) -> Fraction | None:
    """The number, by Python alone; None for what is none."""
    if text.startswith("1-") or text.endswith("+1"):
        return None
    sign = -1 if text.startswith("-") else 1
    text = text.removeprefix("-")
    if text.startswith("\\frac"):
        top, _, bottom = text[6:].removesuffix("}").partition("}{")
        return None if int(bottom) == 0 else sign * Fraction(int(top), int(bottom))
    return sign * Fraction(text)


@given(items=st.lists(integers, min_size=2, max_size=5, unique=True), data=st.data())
@settings(max_examples=200, deadline=None)
def test_order_counts_in_tuples_and_not_in_sets(items: list[str], data: st.DataObject) -> None:
    other = data.draw(st.permutations(items))
    assert judge(rf"\boxed{{\{{{', '.join(other)}\}}}}", rf"\{{{', '.join(items)}\}}").verdict is True
    assert judge(rf"\boxed{{({', '.join(other)})}}", f"({', '.join(items)})").verdict is (other == items)
    assert judge(rf"\boxed{{\{{{', '.join(other[1:])}\}}}}", rf"\{{{', '.join(items)}\}}").verdict is not True
    assert judge(rf"\boxed{{\{{{', '.join(other)}, 0.5\}}}}", rf"\{{{', '.join(items)}\}}").verdict is not True


@given(low=st.integers(-99, 99), width=st.integers(1, 99), brackets=st.sampled_from(["()", "(]", "[)", "[]"]), data=st.data())
@settings(max_examples=200, deadline=None)
def test_intervals_and_inequalities(low: int, width: int, brackets: str, data: st.DataObject) -> None:
    high = low + width
    gold = f"{brackets[0]}{low}, {high}{brackets[1]}"
    signs = ["<" if brackets[0] == "(" else r"\le", "<" if brackets[1] == ")" else r"\le"]
    assert judge(rf"\boxed{{{low} {signs[0]} x {signs[1]} {high}}}", gold).verdict is True
    other = data.draw(st.sampled_from([b for b in ("()", "(]", "[)", "[]") if b != brackets]))
    assert judge(rf"\boxed{{{other[0]}{low}, {high}{other[1]}}}", gold).verdict is not True
    assert judge(rf"\boxed{{{brackets[0]}{low}, {high + 1}{brackets[1]}}}", gold).verdict is not True


@given(a=st.integers(1, 20), b=st.integers(-20, 20), c=st.integers(-20, 20), d=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_expanded_and_factored_forms(a: int, b: int, c: int, d: int) -> None:
    factored = f"({a}x + {b})({d}x + {c})"
    assert judge(rf"\boxed{{{a * d}x^2 + {a * c + b * d}x + {b * c}}}", factored).verdict is True
    assert judge(rf"\boxed{{{a * d}x^2 + {a * c + b * d}x + {b * c + 1}}}", factored).verdict is False


@given(first=integers, second=integers)
@settings(max_examples=200, deadline=None)
def test_several_answers_are_never_one(first: str, second: str) -> None:
    assume(first != second)
    for completion in (
        rf"\boxed{{{first} \text{{ or }} {second}}}", rf"\boxed{{{first}}} or \boxed{{{second}}}", f"The answer is {first} or {second}.",
        f"<think>x</think><answer>{first}, {second}</answer>", rf"<think>\boxed{{{first}}}",
    ):  # fmt: skip
        assert judge(completion, first).verdict is not True, completion


@given(text=st.text(max_size=200), gold=st.one_of(golds, st.text(max_size=40)))
@settings(max_examples=500, deadline=None)
def test_no_text_breaks_it(text: str, gold: str) -> None:
    for completion in (text, rf"\boxed{{{text}}}", f"<answer>{text}</answer>", f"The answer is {text}"):
        judge(completion, gold)


BROKEN = r"""
\frac{ } { ( ) ^ _ 9 ! \sqrt | \left = < , x \pm % \text{ \begin{pmatrix} \end{pmatrix} & \\ e \sum_{k=1}^ 10^ \cup [ ] or
"""
PIECES = BROKEN.split()


@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=60))
@settings(max_examples=400, deadline=None)
def test_broken_latex_is_told_at_once(pieces: list[str]) -> None:
    started = time.process_time()
    judge("\\boxed{" + "".join(pieces) + "}", "5")
    judge("\\boxed{5}", "".join(pieces))
    assert time.process_time() - started < 2.0  # CPU time of this process: hundreds of times what it takes
