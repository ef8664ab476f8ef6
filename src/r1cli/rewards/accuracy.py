"""accuracy: is the final answer right."""

from r1cli.rewards.reward import UNDECIDED, Reward, RewardKind, Score, Undecided
from r1cli.row import Row, require


class MathReward(Reward):
    """1.0 when the answer equals the gold."""

    name = "math"
    isolated = True

    def quick(self, row: Row) -> Score | Undecided:
        require(row, "completion", str)
        if require(row, "answer", str, int, float, type(None)) is None:
            return None
        return self.score(row)

    def score(self, row: Row) -> Score:
        from r1cli.text.answers import last_answer

        return float((last_answer(row["completion"]) or "").strip() == str(row["answer"]).strip())


ACCURACY = RewardKind("accuracy", "the final answer is right", "1 if right, else 0", "accuracy", lambda options: MathReward(), ("completion", "answer"))
MATH = RewardKind("math", "the final answer is right", "1 if right, else 0", "math", lambda options: MathReward(), ("completion", "answer"))
