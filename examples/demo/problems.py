"""Make the demo's rows: sums of a few terms from reasoning-gym, split so that no test problem is ever trained on.

    python examples/demo/problems.py runs/demo/data --cold-start 256 --train 2048 --test 200

Writes test.jsonl and train.jsonl (prompt rows with `answer`) and cold-start.jsonl (SFT rows: a worked solution of each problem). A worked
solution thinks inside <think> and closes with a one-sentence summary inside <answer>. People do not all write alike, so a share of the
solutions (`--brief`) does the whole sum on one line, and the others add up one term a line. A small model often gets the long way right and
the short way wrong: which one to take is what reinforcement learning can find out from the reward alone.
"""

import argparse
import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reasoning_gym

TERM = re.compile(r"[+-]|\d+")


def problems(count: int, terms: tuple[int, int], digits: tuple[int, int], seed: int) -> Iterator[dict[str, Any]]:
    """`count` prompt rows with different expressions."""
    seen: set[str] = set()
    version = importlib.metadata.version("reasoning-gym")
    data = reasoning_gym.create_dataset(
        "chain_sum", size=20 * count, seed=seed, min_terms=terms[0], max_terms=terms[1], min_digits=digits[0], max_digits=digits[1]
    )
    for entry in data:
        expression = entry["metadata"]["expression"]
        if expression not in seen:
            seen.add(expression)
            yield {
                "id": f"chain_sum/{expression.replace(' ', '')}",
                "prompt": f"What is {expression}?",
                "answer": entry["answer"],
                "language": "en",
                "domain": "math",
                "source": f"reasoning-gym {version} chain_sum",
            }
            if len(seen) == count:
                return
    raise SystemExit(f"only {len(seen)} different problems of this kind, {count} asked for: ask for fewer, or for more terms or digits")


def worked_solution(row: dict[str, Any], *, brief: bool) -> str:
    """The sum, one step a line (or all of it on one line), then the summary."""
    first, *rest = TERM.findall(row["prompt"])
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        result = total + int(term) if sign == "+" else total - int(term)
        lines.append(f"{total} {sign} {term} = {result}")
        total = result
    if str(total) != row["answer"]:
        raise SystemExit(f"the worked solution of {row['id']} gives {total}, reasoning-gym says {row['answer']}")
    if brief:
        lines = [f"{row['prompt'].removeprefix('What is ').removesuffix('?')} = {total}"]
    return "<think>\n" + "\n".join(lines) + f"\n</think>\n<answer>The result is \\boxed{{{total}}}.</answer>"


def lesson(row: dict[str, Any], brief: bool) -> dict[str, Any]:
    """The SFT row of a problem."""
    messages = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": worked_solution(row, brief=brief)}]
    return {"id": row["id"], "messages": messages, "source": row["source"]}


def spread(count: int, share: float) -> list[bool]:
    """`count` marks of which a `share` is True, spread evenly."""
    return [int((place + 1) * share) > int(place * share) for place in range(count)]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--test", type=int, default=200, help="held-out problems")
    parser.add_argument("--train", type=int, default=2048, help="problems for RL and rejection sampling")
    parser.add_argument("--cold-start", type=int, default=256, help="problems with a worked solution")
    parser.add_argument("--brief", type=float, default=0.5, help="share of the worked solutions that do the sum on one line")
    parser.add_argument("--terms", type=int, nargs=2, default=(3, 3), metavar=("MIN", "MAX"))
    parser.add_argument("--digits", type=int, nargs=2, default=(2, 2), metavar=("MIN", "MAX"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = list(problems(args.test + args.train + args.cold_start, tuple(args.terms), tuple(args.digits), args.seed))
    test, train, cold = rows[: args.test], rows[args.test : args.test + args.train], rows[args.test + args.train :]
    args.folder.mkdir(parents=True, exist_ok=True)
    write(args.folder / "test.jsonl", test)
    write(args.folder / "train.jsonl", train)
    briefs = spread(len(cold), args.brief)
    write(args.folder / "cold-start.jsonl", [lesson(row, brief) for row, brief in zip(cold, briefs, strict=True)])


if __name__ == "__main__":
    main()
