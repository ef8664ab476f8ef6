"""pass@k: the chance that at least one of k completions is right, estimated without bias from n >= k completions.

Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374), section 2.1, equation 1. Taking
1 - (1 - c/n)^k instead is biased low, and taking k of the n at random is noisier than it needs to be.
"""

from collections.abc import Iterable
from math import comb


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the share of k-subsets of n completions, c of them right, that hold a right one.

    The counts are exact integers and there is one division, so the result is correctly rounded for every n. Raises `ValueError`
    unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    subsets = comb(n, k)
    return (subsets - comb(n - c, k)) / subsets


def mean_pass_at_k(counts: Iterable[tuple[int, int]], k: int) -> float:
    """The mean of `pass_at_k` over problems, each given as (n completions, c right). Raises `ValueError` when there are no problems."""
    values = [pass_at_k(n, c, k) for n, c in counts]
    if not values:
        raise ValueError("pass@k of no problems")
    return sum(values) / len(values)


def powers_up_to(n: int) -> list[int]:
    """1, 2, 4, ... up to n: the ks for which a curve of pass@k is reported."""
    return [1 << i for i in range(n.bit_length())]
