"""The flags of `r1 rm`."""

from dataclasses import dataclass
from typing import Annotated

from r1cli.shared_settings import (
    INPUT,
    SCHEDULES,
    TRAINING,
    Flag,
    InputSettings,
    LaunchSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    RunDirSettings,
    RunSettings,
    StopSettings,
    TrackSettings,
)

VIEWS = ("full", "summary")


@dataclass(frozen=True, kw_only=True)
class RmSettings(
    InputSettings, RunDirSettings, ModelSettings, OptimizerSettings, LoraSettings, StopSettings, LaunchSettings, TrackSettings, RunSettings
):
    """r1 rm"""

    lr_schedule: Annotated[str, Flag("shape of the learning rate after warm-up", TRAINING, choices=SCHEDULES)] = "constant"
    epochs: Annotated[float, Flag("passes over the rows", TRAINING, min=0.0001)] = 1.0
    batch_rows: Annotated[int, Flag("rows (pairs, or labelled completions) a step, over all processes", TRAINING, min=1)] = 64
    max_length: Annotated[
        int, Flag("longest prompt + completion in tokens; rows with a longer one are left out and counted", TRAINING, min=1)
    ] = 8192
    template: Annotated[
        str,
        Flag(
            "chat: the tokenizer's chat template; raw: prompt, completion and end token as they are, and the checkpoint says so",
            TRAINING,
            choices=("chat", "raw"),
        ),
    ] = "chat"
    view: Annotated[
        str, Flag("what is scored: the full completion, or the summary after </think> (R1's helpful model)", TRAINING, choices=VIEWS)
    ] = "full"
    margin: Annotated[
        str | None, Flag("field with a number by which the chosen score must be above the rejected one", TRAINING, metavar="FIELD")
    ] = None
    balance_lengths: Annotated[bool, Flag("leave out pairs until chosen and rejected are equally long on average", INPUT)] = False
    center: Annotated[
        float,
        Flag(
            "weight of the squared sum of a pair's scores, which keeps scores around 0 (TRL: center_rewards_coefficient)", TRAINING, min=0.0
        ),
    ] = 0.0
    held_out: Annotated[
        str | None, Flag("rows that are never trained on: accuracy, calibration, length correlation", TRAINING, metavar="FILE|P%")
    ] = None
    held_out_every: Annotated[int, Flag("steps between measurements of --held-out; 0 is only after the last", TRAINING, min=0)] = 0
