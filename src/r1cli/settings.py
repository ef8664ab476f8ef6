"""One dataclass per command: the only list of flags, defaults and help texts.

`flags.py` turns a dataclass into command-line options, `config.py` adds environment variables (`R1_*`) and TOML keys and remembers which
of them set each value. A field whose meaning is shared by several commands is declared once, in `shared_settings.py`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

from r1cli.grpo_settings import GrpoSettings
from r1cli.rm_settings import RmSettings
from r1cli.shared_settings import (
    DTYPES,
    INPUT,
    MODEL,
    OUTPUT,
    REWARDS,
    RUN,
    SAMPLING,
    SCHEDULES,
    TRAINING,
    EngineSettings,
    Flag,
    InputSettings,
    LaunchSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    PreferenceSettings,
    PromptSettings,
    RewardSettings,
    RowOutputSettings,
    RunDirSettings,
    RunSettings,
    SamplingSettings,
    SpeechSettings,
    StopSettings,
    TrackSettings,
)

SFT_ALARMS = ("diverging", "overfitting")
LEAST_EPOCHS = 0.0001  # above 0, which would train on nothing

FiltersFlag = Annotated[
    str | None,
    Flag("drop hard reading: readable (all), or of truncated,mixed-language,long-paragraph:words=200,code-block,repetition", OUTPUT),
]
PlainFlag = Annotated[
    str | None, Flag("condition: SFT rows taught without their reasoning, as R1's simple queries", OUTPUT, metavar="CONDITION")
]


@dataclass(frozen=True, kw_only=True)
class SampleSettings(InputSettings, RowOutputSettings, ModelSettings, EngineSettings, SamplingSettings, RewardSettings, RunSettings):
    """r1 sample"""

    resume: Annotated[bool, Flag("keep the whole rows of the output file and draw only what is missing", OUTPUT)] = False
    shard: Annotated[
        str | None, Flag("draw only this part of the prompts, told by their ids: 3/64 is the third of 64", INPUT, metavar="I/N")
    ] = None
    num_processes: Annotated[int, Flag("engines on this machine, each with its own copy of the model (and its own GPU)", MODEL, min=1)] = 1
    few_shot: Annotated[
        str | None, Flag("file of worked examples (prompt + completion, or messages) to show before each prompt", SAMPLING, metavar="FILE")
    ] = None
    shots: Annotated[int | None, Flag("examples to show (default: all of --few-shot)", SAMPLING, min=1)] = None
    logprobs: Annotated[bool, Flag("keep `token_ids` and `logprobs` in the rows", OUTPUT)] = False
    until: Annotated[
        str | None,
        Flag(
            "draw --samples more of a prompt until it has this many: correct=4, passing=4, a reward's name, or a condition ('x > 0.5=4')",
            SAMPLING,
            metavar="WHAT=N",
        ),
    ] = None
    max: Annotated[int | None, Flag("most completions a prompt with --until (default: 64)", SAMPLING, min=1)] = None
    rewards: Annotated[
        str, Flag("score the rows on the way (default: none; with --until: accuracy; see `r1 rewards`)", REWARDS, metavar="NAME[=W],...")
    ] = ""


@dataclass(frozen=True, kw_only=True)
class RejectSettings(InputSettings, RowOutputSettings, EngineSettings, RewardSettings, PreferenceSettings, RunSettings):
    """r1 reject"""

    keep: Annotated[
        str,
        Flag("which rows stay: passing (every reward at its maximum), all, or a condition like 'accuracy == 1 and language > 0.9'", OUTPUT),
    ] = "passing"
    filters: FiltersFlag = None
    pass_rate: Annotated[
        str | None, Flag("only prompts of which this share of the completions is right, by the first reward", OUTPUT, metavar="LOW..HIGH")
    ] = None
    per_prompt: Annotated[int, Flag("most rows (with --pairs: pairs) kept a prompt; 0 is all", OUTPUT, min=0)] = 0
    pick: Annotated[
        str, Flag("which of a prompt's rows are kept", OUTPUT, choices=("random", "shortest", "longest", "best", "diverse"))
    ] = "random"
    rejected: Annotated[str | None, Flag("file for the dropped rows, each with `rejected_because`", OUTPUT)] = None
    to: Annotated[str, Flag("shape of the kept rows", OUTPUT, choices=("rows", "sft"))] = "rows"
    plain: PlainFlag = None
    pairs: Annotated[bool, Flag("write preference rows: prompt, chosen (a kept row), rejected (a worse one)", OUTPUT)] = False
    balance_lengths: Annotated[bool, Flag("leave out pairs until chosen and rejected are equally long on average", OUTPUT)] = False
    compare: Annotated[
        str | None, Flag("say what moved since this file was scored; `input`: since the input was scored", OUTPUT, metavar="OLD")
    ] = None
    moved: Annotated[str | None, Flag("file for the rows that --compare found moved, each with `moved`", OUTPUT)] = None
    judge: Annotated[
        str | None, Flag("model that grades rows without a rule, and compares pairs: folder, run directory, hub name or URL", MODEL)
    ] = None
    judge_when: Annotated[str | None, Flag("condition for the rows it grades (default: no rule gave a score)", MODEL)] = None
    judge_margin: Annotated[float, Flag("pairs stay above this mean margin of four comparisons, of 2", MODEL, min=0.0, max=2.0)] = 1.0
    judge_temperature: Annotated[float, Flag("the judge's sampling temperature", MODEL, min=0.0, max=2.0)] = 0.6
    judge_length: Annotated[int, Flag("most new tokens a verdict", MODEL, min=1)] = 1024
    dtype: Annotated[str, Flag("computation type; auto is bfloat16 where the hardware has it", MODEL, choices=DTYPES)] = "auto"
    trust_remote_code: Annotated[bool, Flag("run code that comes with the model", MODEL)] = False


@dataclass(frozen=True, kw_only=True)
class MixSettings(RowOutputSettings, RunSettings):
    """r1 mix"""

    inputs: Annotated[
        list[str],
        Flag(
            "row files: FILE (all rows), FILE:N (exactly N), FILE:25%, FILE:2.5x (repeated), FILE=W (weight W); - is stdin",
            INPUT,
            positional=True,
        ),
    ]
    map: Annotated[list[str], Flag("read a field from another column (repeatable)", INPUT, metavar="FIELD=COLUMN")] = field(
        default_factory=list
    )
    skip_bad: Annotated[bool, Flag("leave out bad lines and count them instead of stopping", INPUT)] = False
    total: Annotated[int | None, Flag("rows in all, for weights (default: as many as the smallest source allows)", INPUT, min=1)] = None
    max_repeat: Annotated[int, Flag("a source with too few rows may give each this often", INPUT, min=1)] = 1
    stratify: Annotated[str | None, Flag("field whose values keep their shares when a part of a source is drawn", INPUT)] = None
    chars: Annotated[str | None, Flag("drop rows whose texts are shorter or longer", INPUT, metavar="MIN..MAX")] = None
    language: Annotated[list[str], Flag("drop rows that are not in this language (ISO 639-1, repeatable)", INPUT)] = field(
        default_factory=list
    )
    dedupe: Annotated[
        str, Flag("remove repeated rows: equal ones, or also near-duplicates by MinHash", INPUT, choices=("none", "exact", "minhash"))
    ] = "none"
    similarity: Annotated[float, Flag("Jaccard similarity of 5-word runs that makes near-duplicates", INPUT, min=0.5, max=1.0)] = 0.8
    decontaminate: Annotated[list[str], Flag("drop rows that share an n-gram with the prompts of this file (repeatable)", INPUT)] = field(
        default_factory=list
    )
    ngram: Annotated[int, Flag("words an overlap must have to count", INPUT, min=1)] = 10
    rejected: Annotated[str | None, Flag("file for the dropped rows, each with `rejected_because`", OUTPUT)] = None
    validation: Annotated[str | None, Flag("rows held back for validation, all rows of a prompt or none", OUTPUT, metavar="N|P%")] = None
    validation_out: Annotated[str | None, Flag("file for the rows held back", OUTPUT)] = None
    unify_numbers: Annotated[bool, Flag("Parquet: a field of whole and other numbers is a column of floats, not of JSON text", OUTPUT)] = (
        False
    )
    shuffle: Annotated[bool, Flag("shuffle by seed", OUTPUT)] = True
    num_processes: Annotated[int, Flag("processes that read rows; 0 is one per core", RUN, min=0)] = 0


@dataclass(frozen=True, kw_only=True)
class SftSettings(
    InputSettings, RunDirSettings, ModelSettings, OptimizerSettings, LoraSettings, StopSettings, LaunchSettings, TrackSettings, RunSettings
):
    """r1 sft"""

    lr_schedule: Annotated[str, Flag("shape of the learning rate after warm-up", TRAINING, choices=SCHEDULES)] = "cosine"
    epochs: Annotated[float, Flag("passes over the rows", TRAINING, min=LEAST_EPOCHS)] = 2.0
    batch_rows: Annotated[int, Flag("rows a step, over all processes", TRAINING, min=1)] = 128
    max_length: Annotated[int, Flag("longest row in tokens; longer ones are left out and counted", TRAINING, min=1)] = 32768
    template: Annotated[str, Flag("how prompt + completion rows become text: chat, boxed, r1-zero, raw, or a file", TRAINING)] = "chat"
    loss_on: Annotated[
        str,
        Flag("what of a chat is learnt: every assistant turn, or the last one (completion)", TRAINING, choices=("assistant", "completion")),
    ] = "assistant"
    held_out: Annotated[str | None, Flag("SFT rows that are never trained on, whose loss is measured", TRAINING, metavar="FILE|P%")] = None
    held_out_every: Annotated[int, Flag("steps between measurements of --held-out; 0 is only after the last", TRAINING, min=0)] = 0
    alarm_steps: Annotated[int, Flag("steps whose mean loss is compared for the alarm diverging", RUN, min=1)] = 10
    stop_on: Annotated[str | None, Flag("alarms that end the run with exit code 1: " + ", ".join(SFT_ALARMS), RUN, metavar="NAME,...")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class DistillSettings(
    InputSettings, RunDirSettings, EngineSettings, SamplingSettings, RewardSettings, OptimizerSettings, LoraSettings, StopSettings,
    TrackSettings, RunSettings,
):  # fmt: skip
    """r1 distill"""

    teacher: Annotated[str | None, Flag("teacher: model folder, run directory or hub name (not needed with --traces)", MODEL)] = None
    traces: Annotated[str | None, Flag("completion rows that exist: nothing is sampled", MODEL)] = None
    student: Annotated[str, Flag("student: model folder, run directory or hub name", MODEL)]
    dtype: Annotated[str, Flag("computation type; auto is bfloat16 where the hardware has it", MODEL, choices=DTYPES)] = "auto"
    trust_remote_code: Annotated[bool, Flag("run code that comes with the model", MODEL)] = False
    temperature: Annotated[float, Flag("0 is greedy", SAMPLING, min=0.0, max=2.0)] = 0.6
    top_p: Annotated[float, Flag("nucleus: smallest set of tokens with this probability", SAMPLING, min=0.0, max=1.0)] = 0.95
    general: Annotated[list[str], Flag("SFT rows mixed in as they are: FILE (all), or FILE:N (repeatable)", INPUT)] = field(
        default_factory=list
    )
    per_prompt: Annotated[int, Flag("most traces kept a prompt; 0 is all", OUTPUT, min=0)] = 0
    filters: FiltersFlag = None
    plain: PlainFlag = None
    eval: Annotated[str | None, Flag("held-out prompt rows: the student is scored on them, and not trained", INPUT, metavar="FILE")] = None
    eval_samples: Annotated[int, Flag("completions a held-out prompt", SAMPLING, min=1)] = 4
    on_policy: Annotated[
        bool, Flag("the student samples and learns from the teacher's log-probabilities of its tokens (reverse KL)", TRAINING)
    ] = False
    steps: Annotated[int, Flag("steps of --on-policy", TRAINING, min=1)] = 100
    prompts_per_step: Annotated[int, Flag("prompts a step of --on-policy; --samples completions each", TRAINING, min=1)] = 32
    importance_cap: Annotated[
        float, Flag("cap of the per-token weight between trainer and sampler with --on-policy; 0 is off", TRAINING, min=0.0)
    ] = 2.0
    lr_schedule: Annotated[str, Flag("shape of the learning rate after warm-up", TRAINING, choices=SCHEDULES)] = "cosine"
    epochs: Annotated[float, Flag("passes over the traces", TRAINING, min=LEAST_EPOCHS)] = 2.0
    batch_rows: Annotated[int, Flag("rows a step, over all processes", TRAINING, min=1)] = 64
    max_length: Annotated[int, Flag("longest row in tokens; longer ones are left out and counted", TRAINING, min=1)] = 32768


@dataclass(frozen=True, kw_only=True)
class EvalSettings(InputSettings, EngineSettings, SamplingSettings, RewardSettings, PreferenceSettings, RunSettings):
    """r1 eval"""

    model: Annotated[str | None, Flag("model folder, run directory or hub name (not needed for completion rows)", MODEL, short="m")] = None
    dtype: Annotated[str, Flag("computation type; auto is bfloat16 where the hardware has it", MODEL, choices=DTYPES)] = "auto"
    trust_remote_code: Annotated[bool, Flag("run code that comes with the model", MODEL)] = False
    benchmark: Annotated[
        str | None, Flag("a benchmark by name: its template, k and temperature (see `r1 eval --list-benchmarks`)", INPUT)
    ] = None
    list_benchmarks: Annotated[bool, Flag("list the benchmarks and end", INPUT)] = False
    temperature: Annotated[float, Flag("0 is greedy", SAMPLING, min=0.0, max=2.0)] = 0.6
    top_p: Annotated[float, Flag("nucleus: smallest set of tokens with this probability", SAMPLING, min=0.0, max=1.0)] = 0.95
    rewards: Annotated[str, Flag("rewards; the first one decides what is correct", REWARDS, metavar="NAME[=W],...")] = "accuracy"
    judge: Annotated[str | None, Flag("model that tells refusals apart instead of the rule: a folder, or URL", MODEL)] = None
    judge_temperature: Annotated[float, Flag("the judge's sampling temperature", MODEL, min=0.0, max=2.0)] = 0.6
    judge_length: Annotated[int, Flag("most new tokens a verdict", MODEL, min=1)] = 1024
    json: Annotated[bool, Flag("one JSON object on stdout", OUTPUT)] = False
    rows: Annotated[str | None, Flag("file for the scored completion rows", OUTPUT)] = None
    out: Annotated[str | None, Flag("file for the scores as JSON", OUTPUT, short="o")] = None
    min: Annotated[list[str], Flag("exit 1 unless a score reaches a value (repeatable)", OUTPUT, metavar="SCORE=VALUE")] = field(
        default_factory=list
    )
    force: Annotated[bool, Flag("replace outputs that exist", OUTPUT)] = False


@dataclass(frozen=True, kw_only=True)
class ReportSettings(SpeechSettings):
    """r1 report"""

    inputs: Annotated[list[str], Flag("run directories and score files of `r1 eval`", INPUT, positional=True)]
    out: Annotated[str, Flag("HTML file", OUTPUT, short="o")] = "report.html"
    title: Annotated[str | None, Flag("heading of the page", OUTPUT)] = None
    json: Annotated[bool, Flag("what the page is made of as one JSON object on stdout", OUTPUT)] = False
    force: Annotated[bool, Flag("replace an output that exists", OUTPUT)] = False


@dataclass(frozen=True, kw_only=True)
class CheckSettings(InputSettings, PromptSettings, RewardSettings, RunSettings):
    """r1 check"""

    model: Annotated[str | None, Flag("model folder, run directory or hub name", MODEL, short="m")] = None
    trust_remote_code: Annotated[bool, Flag("run code that comes with the model", MODEL)] = False
    max_prompt_length: Annotated[int, Flag("longest prompt in tokens", SAMPLING, min=1)] = 1024
    max_completion_length: Annotated[int, Flag("most new tokens a completion", SAMPLING, min=1)] = 1024
    max_length: Annotated[
        int | None,
        Flag("longest row with answers in tokens; longer ones are counted (default: sft's 32768, or rm's 8192)", TRAINING, min=1),
    ] = None
    json: Annotated[bool, Flag("one JSON object on stdout", OUTPUT)] = False


@dataclass(frozen=True, kw_only=True)
class RewardsSettings(SpeechSettings):
    """r1 rewards"""

    json: Annotated[bool, Flag("one JSON object on stdout", OUTPUT)] = False


@dataclass(frozen=True, kw_only=True)
class LineageSettings(SpeechSettings):
    """r1 lineage"""

    inputs: Annotated[list[str], Flag("files, run directories or models that r1 made", INPUT, positional=True)]
    json: Annotated[bool, Flag("one JSON object on stdout", OUTPUT)] = False
    check: Annotated[bool, Flag("exit 1 when a file on the way is gone or has changed", OUTPUT)] = False


COMMANDS: dict[str, Any] = {
    "sample": SampleSettings,
    "reject": RejectSettings,
    "mix": MixSettings,
    "sft": SftSettings,
    "rm": RmSettings,
    "grpo": GrpoSettings,
    "distill": DistillSettings,
    "eval": EvalSettings,
    "report": ReportSettings,
    "check": CheckSettings,
    "rewards": RewardsSettings,
    "lineage": LineageSettings,
}
