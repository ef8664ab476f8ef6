"""On-policy distillation: the reverse KL between student and teacher on the student's own completions, as a pure function.

Shapes: _N completion tokens of a micro-batch, packed.

At each position the loss is KL(student || teacher) = E_{token ~ student}[log student - log teacher]. The token that was sampled gives an
unbiased estimate of its value, d = log student - log teacher, and of its gradient, d * grad log student (the score function; the other
term, E[grad log student], is zero). For the same reason a constant may be taken from d without changing the gradient's mean; the step's
mean d takes most of the noise with it (d is far from zero as long as the two models differ). So the teacher need only score tokens: no
distribution of vocabulary size leaves it, and it may be any model with the same tokens.

Sources: GKD (arXiv 2306.13649), equation 2 with the reverse KL; MiniLLM (arXiv 2306.08543), equation 3. As in GKD, and unlike MiniLLM, a
token answers for its own position only: the KL of the positions after it is not credited to it.
"""

import torch
from torch import Tensor


def reverse_kl_loss(student_logprobs_N: Tensor, teacher_logprobs_N: Tensor, baseline: float = 0.0) -> tuple[Tensor, Tensor]:
    """(what to differentiate, the estimate of the KL without gradient), per token, both [N], in nats.

    The gradient of the first, averaged over tokens drawn from the student, is the gradient of the KL; its value means nothing. The second
    averages to the KL, and is negative for tokens that the teacher finds likelier. baseline: the constant taken from d.
    """
    with torch.no_grad():
        kl_N = student_logprobs_N - teacher_logprobs_N
    return (kl_N - baseline) * student_logprobs_N, kl_N
