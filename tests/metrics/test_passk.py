"""pass@k against its definition (counting subsets), against the paper's product form, and at the edges."""

from fractions import Fraction
from itertools import combinations
from math import comb, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1cli.metrics.passk import mean_pass_at_k, pass_at_k, powers_up_to


def test_the_number_of_the_recipe() -> None:
    assert pass_at_k(4, 1, 2) == 0.5


@pytest.mark.parametrize(("n", "c", "k"), [(n, c, k) for n in range(1, 7) for c in range(n + 1) for k in range(1, n + 1)])
def test_it_is_the_share_of_subsets_that_hold_a_right_one(n: int, c: int, k: int) -> None:
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets), abs=1e-15)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_it_agrees_with_the_papers_product(case: tuple[int, int, int]) -> None:
    n, c, k = case
    product = 1 - prod(Fraction(n - k - i, n - i) for i in range(c)) if n - c >= k else Fraction(1)
    assert pass_at_k(n, c, k) == float(product)


def test_large_counts_neither_overflow_nor_lose_digits() -> None:
    assert pass_at_k(100_000, 1, 3) == 3 / 100_000  # 1 - (1 - 3e-5) would be wrong in the 12th digit
    assert pass_at_k(10_000, 5_000, 5_000) == 1.0
    assert comb(10_000, 5_000) > 1e300  # ... though the subsets do not fit a float


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5), (0, 0, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(n, c, k)


def test_the_mean_is_over_problems_not_completions() -> None:
    assert mean_pass_at_k([(4, 4), (2, 0)], 1) == 0.5
    with pytest.raises(ValueError, match="no problems"):
        mean_pass_at_k([], 1)


def test_powers() -> None:
    assert [powers_up_to(n) for n in (1, 2, 3, 4, 64)] == [[1], [1, 2], [1, 2], [1, 2, 4], [1, 2, 4, 8, 16, 32, 64]]
