"""The options that say how well model code must be held: of `code`, and of `accuracy`, which passes them on to it.

The flags `--sandbox-level` and `--unsafe` of every command that scores set them for all rewards that have them.
"""

from r1cli.rewards.reward import Option

LEVELS = ("limits", "seccomp", "confined", "namespaces", "bubblewrap")  # as `sandbox.Level`, from least to best
MINIMUM = "confined"

LEVEL = Option("level", str, MINIMUM, "least sandbox level at which model code runs (also --sandbox-level)", LEVELS)
UNSAFE = Option("unsafe", bool, False, "run model code even below that level (also --unsafe, R1_UNSAFE=1)")
