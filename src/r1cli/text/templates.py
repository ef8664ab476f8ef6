"""The prompt templates: what stands around a prompt.

chat      the tokenizer's chat template with a generation prompt
boxed     the same, the last user message followed by the sentence the R1 model card asks for
reflect   the same, followed by a request for detailed reasoning with reflection and verification, then a summary: what R1's cold start
          asked a model for (arXiv 2501.12948, section 2.3.1)
rewrite   chat; the prompt is a completion row, and the model is asked to make its reasoning readable (`rewriting.py`)
r1-zero   the template of DeepSeek-R1-Zero (arXiv 2501.12948, Table 1): plain text for a base model
raw       the prompt as it is
FILE      the text of a file in which `{prompt}` stands for the prompt (nothing else in braces means anything)
"""

from pathlib import Path

from r1cli.errors import Exit, R1Error, nearest

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
REFLECT = (
    "Work the problem out in detail before you answer. Go one step at a time, and say what each step is for. Verify every result, for "
    "instance by computing it another way or by putting it back into the problem. Reflect on what you have so far: when something does not "
    "fit, say so, go back and correct it. Write all of this between <think> and </think>. After that, write a short summary of the "
    "solution for a reader who has not seen your reasoning, and end it with the final answer within \\boxed{}."
)
R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first thinks about "
    "the reasoning process in the mind and then provides the user with the answer. The reasoning process and answer are enclosed within "
    "<think>...</think> and <answer>...</answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here "
    "</answer>. User: {prompt}. Assistant:"
)
SLOT = "{prompt}"
REQUESTS = {"boxed": BOXED, "reflect": REFLECT}  # what follows the last user message
CHAT_TEMPLATES = ("chat", *REQUESTS, "rewrite")
TEMPLATES = (*CHAT_TEMPLATES, "r1-zero", "raw")
OPEN, CLOSE = "<think>", "</think>"


def opened(ending: str) -> str:
    """The open reasoning block at the end of a prompt: "<think>\\n" of "assistant\\n<think>\\n", "" when none is open."""
    _, tag, rest = ending.rpartition(OPEN)
    return tag + rest if tag and CLOSE not in rest else ""


def closed(ending: str) -> str:
    """The reasoning that a prompt has closed at its end: "<think>\\n\\n</think>\\n\\n" where a template turns thinking off; "" if none."""
    if not ending.rstrip().endswith(CLOSE):
        return ""
    return ending[ending.rfind(OPEN if OPEN in ending else CLOSE) :]


def check_template(template: str, system: str | None = None) -> str:
    """The text around {prompt} of a plain-text template, "" for the chat ones; needs no tokenizer, so a mistake is found before a model
    is loaded. Raises `R1Error` (exit 2): an unknown template, a file without {prompt}, a system message where there is no place for it.
    """
    if template in CHAT_TEMPLATES:
        return ""
    if system is not None:
        raise R1Error(
            f"a system message has no place in template `{template}`",
            code=Exit.USAGE,
            hint="write it into the template, or take --template chat",
        )
    if template == "raw":
        return SLOT
    if template == "r1-zero":
        return R1_ZERO
    path = Path(template).expanduser()
    if not path.is_file():
        raise R1Error(f"no template named `{template}`, and no such file", hint=nearest(template, TEMPLATES), code=Exit.USAGE)
    frame = path.read_text(encoding="utf-8").removesuffix("\n")  # the newline an editor leaves at the end of a file
    if SLOT not in frame:
        raise R1Error(f"template `{template}` has no {SLOT} in it", hint=f"write {SLOT} where the prompt belongs", code=Exit.USAGE)
    return frame
