"""One dataclass per command: the only list of flags, defaults and help texts.

`flags.py` turns a dataclass into command-line options, environment variables (`R1_*`) and TOML keys, and remembers which of them set
each value. Nothing heavy is imported here. A field whose meaning is shared by several commands is declared once, in a base class.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any


@dataclass(frozen=True)
class Flag:
    """How a field appears on the command line.

    group: the heading it stands under in --help. short: one-letter form. min, max: bounds, refused outside. choices: the allowed words.
    positional: an argument, not an option (only input paths are). metavar: what stands for the value in --help.
    """

    help: str
    group: str
    short: str | None = None
    min: float | None = None
    max: float | None = None
    choices: tuple[str, ...] = ()
    positional: bool = False
    metavar: str | None = None


INPUT, OUTPUT, MODEL, SAMPLING, REWARDS, TRAINING, RUN = "Input", "Output", "Model", "Sampling", "Rewards", "Training", "Run"
LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every command has."""

    seed: Annotated[int, Flag("seed of every random choice", RUN)] = 0
    quiet: Annotated[int, Flag("say less on stderr (-qq: errors only)", RUN, short="q", metavar="")] = 0
    verbose: Annotated[bool, Flag("say more on stderr, library logs included", RUN, short="v")] = False
    progress: Annotated[bool, Flag("show progress", RUN)] = True
    debug: Annotated[bool, Flag("print the traceback of an error", RUN)] = False


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """Where rows come from."""

    inputs: Annotated[
        list[str],
        Flag("rows: JSONL (.gz, .zst), Parquet, a data set folder, hf:org/name@revision:split, or - for stdin", INPUT, positional=True),
    ]
    map: Annotated[list[str], Flag("read a field from another column (repeatable)", INPUT, metavar="FIELD=COLUMN")] = field(default_factory=list)
    limit: Annotated[int | None, Flag("read at most this many rows", INPUT, short="n", min=0)] = None
    skip_bad: Annotated[bool, Flag("leave out bad lines and count them instead of stopping", INPUT)] = False


@dataclass(frozen=True, kw_only=True)
class RowOutputSettings:
    """Where rows go."""

    out: Annotated[str, Flag("file for the rows (.jsonl, .jsonl.gz, .jsonl.zst, .parquet); - is stdout", OUTPUT, short="o")] = "-"
    force: Annotated[bool, Flag("replace an output that exists", OUTPUT)] = False


@dataclass(frozen=True, kw_only=True)
class RunDirSettings:
    """Where a training run goes."""

    out: Annotated[str, Flag("run directory", OUTPUT, short="o")]
    force: Annotated[bool, Flag("throw away what the run directory holds and start anew", OUTPUT)] = False
    resume: Annotated[bool, Flag("continue the run in the run directory from its last checkpoint", OUTPUT)] = False
    dry_run: Annotated[bool, Flag("check settings, rows and model, print the plan, train nothing", RUN)] = False


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model, loaded how."""

    model: Annotated[str, Flag("model folder, run directory, or hub name", MODEL, short="m")]
    dtype: Annotated[str, Flag("computation type", MODEL, choices=("bfloat16", "float32", "float16"))] = "bfloat16"
    trust_remote_code: Annotated[bool, Flag("run code that comes with the model", MODEL)] = False


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Which sampler. auto is vllm where it can be imported, else transformers."""

    engine: Annotated[str, Flag("sampler", MODEL, choices=("auto", "vllm", "transformers"))] = "auto"
    max_model_len: Annotated[
        int | None, Flag("longest prompt + completion the engine makes room for (default: what the longest prompt needs)", MODEL, min=1)
    ] = None
    gpu_memory: Annotated[float, Flag("share of GPU memory vLLM may take", MODEL, min=0.05, max=1.0)] = 0.9
    kv_cache_gib: Annotated[float, Flag("KV cache of vLLM on a CPU, in GiB", MODEL, min=0.1)] = 1.0
    batch_size: Annotated[int, Flag("most sequences that are generated at the same time", MODEL, min=1)] = 64


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """How a row's prompt becomes the text the model sees."""

    template: Annotated[
        str, Flag("prompt template: chat, boxed (chat, asks for \\boxed{}), r1-zero, raw, or a file with {prompt} in it", SAMPLING)
    ] = "chat"
    system: Annotated[str | None, Flag("system message", SAMPLING)] = None
    think_prefix: Annotated[bool, Flag("open <think> in the prompt, for models that skip thinking", SAMPLING)] = False


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(PromptSettings):
    """How completions are drawn."""

    samples: Annotated[int, Flag("completions a prompt", SAMPLING, short="k", min=1)] = 1
    temperature: Annotated[float, Flag("0 is greedy", SAMPLING, min=0.0)] = 1.0
    top_p: Annotated[float, Flag("nucleus: smallest set of tokens with this probability", SAMPLING, min=0.0, max=1.0)] = 1.0
    top_k: Annotated[int, Flag("most likely tokens to draw from; 0 is all", SAMPLING, min=0)] = 0
    max_completion_length: Annotated[int, Flag("most new tokens a completion", SAMPLING, min=1)] = 1024
    stop: Annotated[list[str], Flag("end a completion after this string (repeatable)", SAMPLING)] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """How completions are scored."""

    rewards: Annotated[
        str, Flag("rewards with weights: accuracy,format=0.5,path/to/file.py:function (see `r1 rewards`)", REWARDS, metavar="NAME[=W],...")
    ] = "accuracy,format"
    reward_workers: Annotated[int, Flag("reward processes; 0 is one per core", REWARDS, min=0)] = 0
    reward_timeout: Annotated[float, Flag("seconds a row may take before its reward is 0 and counted as a timeout", REWARDS, min=0.01)] = 5.0


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer and the batches, for every command that trains."""

    lr: Annotated[float, Flag("peak learning rate", TRAINING, min=0.0)] = 1e-5
    lr_schedule: Annotated[str, Flag("shape of the learning rate after warm-up", TRAINING, choices=("constant", "cosine", "linear"))] = "constant"
    lr_floor: Annotated[float, Flag("last learning rate as a share of the peak", TRAINING, min=0.0, max=1.0)] = 0.1
    warmup_steps: Annotated[int, Flag("steps over which the learning rate rises from 0", TRAINING, min=0)] = 0
    weight_decay: Annotated[float, Flag("AdamW's weight decay", TRAINING, min=0.0)] = 0.0
    adam_beta2: Annotated[float, Flag("AdamW's beta2", TRAINING, min=0.0, max=1.0)] = 0.999
    max_grad_norm: Annotated[float, Flag("gradients are scaled down to this norm; 0 is off", TRAINING, min=0.0)] = 1.0
    microbatch_tokens: Annotated[int, Flag("most tokens (padding included) a forward pass holds", TRAINING, min=1)] = 8192
    gradient_checkpointing: Annotated[bool, Flag("recompute activations in the backward pass: less memory, more time", TRAINING)] = False
    save_every: Annotated[int, Flag("steps between checkpoints; 0 is only the last", TRAINING, min=0)] = 0
    keep: Annotated[int, Flag("checkpoints that stay on disk", TRAINING, min=1)] = 2


@dataclass(frozen=True, kw_only=True)
class SampleSettings(InputSettings, RowOutputSettings, ModelSettings, EngineSettings, SamplingSettings, RunSettings):
    """r1 sample"""

    resume: Annotated[bool, Flag("keep the whole rows of the output file and draw only what is missing", OUTPUT)] = False


@dataclass(frozen=True, kw_only=True)
class RejectSettings(InputSettings, RowOutputSettings, RewardSettings, RunSettings):
    """r1 reject"""

    keep: Annotated[str, Flag("which rows stay: passing (every reward at its maximum), all, or a condition such as 'accuracy == 1 and language > 0.9'", OUTPUT)] = "passing"
    per_prompt: Annotated[int, Flag("most rows kept a prompt; 0 is all", OUTPUT, min=0)] = 0
    pick: Annotated[str, Flag("which of a prompt's rows are kept", OUTPUT, choices=("random", "shortest", "longest", "best"))] = "random"
    rejected: Annotated[str | None, Flag("file for the dropped rows, each with `rejected_because`", OUTPUT)] = None
    to: Annotated[str, Flag("shape of the kept rows", OUTPUT, choices=("rows", "sft"))] = "rows"


@dataclass(frozen=True, kw_only=True)
class MixSettings(RowOutputSettings, RunSettings):
    """r1 mix"""

    inputs: Annotated[list[str], Flag("row files: FILE (all rows), FILE:N (exactly N), FILE=W (weight W) or - for stdin", INPUT, positional=True)]
    map: Annotated[list[str], Flag("read a field from another column (repeatable)", INPUT, metavar="FIELD=COLUMN")] = field(default_factory=list)
    skip_bad: Annotated[bool, Flag("leave out bad lines and count them instead of stopping", INPUT)] = False
    total: Annotated[int | None, Flag("rows in all, for weights (default: as many as the smallest source allows)", INPUT, min=1)] = None
    dedupe: Annotated[str, Flag("remove repeated rows", OUTPUT, choices=("none", "exact"))] = "none"
    decontaminate: Annotated[list[str], Flag("drop rows that share an n-gram with the prompts of this file (repeatable)", INPUT)] = field(default_factory=list)
    ngram: Annotated[int, Flag("words an overlap must have to count", INPUT, min=1)] = 10
    shuffle: Annotated[bool, Flag("shuffle by seed", OUTPUT)] = True


@dataclass(frozen=True, kw_only=True)
class SftSettings(InputSettings, RunDirSettings, ModelSettings, OptimizerSettings, RunSettings):
    """r1 sft"""

    lr: Annotated[float, Flag("peak learning rate", TRAINING, min=0.0)] = 1e-5
    lr_schedule: Annotated[str, Flag("shape of the learning rate after warm-up", TRAINING, choices=("constant", "cosine", "linear"))] = "cosine"
    epochs: Annotated[float, Flag("passes over the rows", TRAINING, min=0.0)] = 2.0
    batch_rows: Annotated[int, Flag("rows a step, over all processes", TRAINING, min=1)] = 128
    max_length: Annotated[int, Flag("longest row in tokens; longer ones are left out and counted", TRAINING, min=1)] = 32768
    template: Annotated[str, Flag("how prompt + completion rows become text: chat, boxed, r1-zero, raw, or a file", TRAINING)] = "chat"


@dataclass(frozen=True, kw_only=True)
class GrpoSettings(
    InputSettings, RunDirSettings, ModelSettings, EngineSettings, PromptSettings, RewardSettings, OptimizerSettings, RunSettings
):
    """r1 grpo"""

    lr: Annotated[float, Flag("peak learning rate (R1-Zero: 3e-6)", TRAINING, min=0.0)] = 3e-6
    steps: Annotated[int, Flag("rollouts: each draws prompts-per-step x group-size completions and trains on them", TRAINING, min=1)] = 100
    prompts_per_step: Annotated[int, Flag("prompts a rollout", TRAINING, min=1)] = 32
    group_size: Annotated[int, Flag("completions a prompt (R1-Zero: 16)", TRAINING, min=2)] = 16
    updates_per_rollout: Annotated[int, Flag("optimizer steps a rollout is split into, at random", TRAINING, min=1)] = 1
    epochs_per_rollout: Annotated[int, Flag("passes over each rollout", TRAINING, min=1)] = 1
    loss: Annotated[str, Flag("objective and its divisor", TRAINING, choices=LOSSES)] = "grpo"
    clip_low: Annotated[float, Flag("lower clip: the ratio is held above 1 - this", TRAINING, min=0.0)] = 0.2
    clip_high: Annotated[float | None, Flag("upper clip: the ratio is held below 1 + this (default: as clip-low; R1 stage 2: 10)", TRAINING, min=0.0)] = None
    beta: Annotated[float, Flag("weight of the KL to the reference (R1-Zero: 0.001); 0 needs no reference", TRAINING, min=0.0)] = 0.001
    reference_every: Annotated[int, Flag("steps after which the reference becomes the policy (R1-Zero: 400); 0 is never", TRAINING, min=0)] = 400
    advantage: Annotated[str, Flag("how rewards become advantages", TRAINING, choices=("group", "batch", "mean", "loo"))] = "group"
    mask_truncated: Annotated[bool, Flag("completions cut at the length limit give no gradient", TRAINING)] = True
    importance_cap: Annotated[float, Flag("cap of the per-token weight between trainer and sampler; 0 is off", TRAINING, min=0.0)] = 2.0
    temperature: Annotated[float, Flag("sampling temperature (R1: 1)", SAMPLING, min=0.01)] = 1.0
    max_completion_length: Annotated[int, Flag("most new tokens a completion", SAMPLING, min=1)] = 1024
    max_prompt_length: Annotated[int, Flag("longer prompts are left out and counted", SAMPLING, min=1)] = 1024
    stop: Annotated[list[str], Flag("end a completion after this string (repeatable)", SAMPLING)] = field(default_factory=list)
    samples_every: Annotated[int, Flag("steps between readable samples in samples.jsonl", RUN, min=1)] = 1


@dataclass(frozen=True, kw_only=True)
class DistillSettings(InputSettings, RunDirSettings, EngineSettings, SamplingSettings, RewardSettings, OptimizerSettings, RunSettings):
    """r1 distill"""

    teacher: Annotated[str | None, Flag("teacher: model folder, run directory or hub name (not needed with --traces)", MODEL)] = None
    traces: Annotated[str | None, Flag("completion rows that exist: nothing is sampled", MODEL)] = None
    student: Annotated[str, Flag("student: model folder, run directory or hub name", MODEL)]
    dtype: Annotated[str, Flag("computation type", MODEL, choices=("bfloat16", "float32", "float16"))] = "bfloat16"
    trust_remote_code: Annotated[bool, Flag("run code that comes with the model", MODEL)] = False
    temperature: Annotated[float, Flag("0 is greedy", SAMPLING, min=0.0)] = 0.6
    top_p: Annotated[float, Flag("nucleus: smallest set of tokens with this probability", SAMPLING, min=0.0, max=1.0)] = 0.95
    general: Annotated[list[str], Flag("SFT rows mixed in as they are (repeatable)", INPUT)] = field(default_factory=list)
    per_prompt: Annotated[int, Flag("most traces kept a prompt; 0 is all", OUTPUT, min=0)] = 0
    lr_schedule: Annotated[str, Flag("shape of the learning rate after warm-up", TRAINING, choices=("constant", "cosine", "linear"))] = "cosine"
    epochs: Annotated[float, Flag("passes over the traces", TRAINING, min=0.0)] = 2.0
    batch_rows: Annotated[int, Flag("rows a step, over all processes", TRAINING, min=1)] = 64
    max_length: Annotated[int, Flag("longest row in tokens; longer ones are left out and counted", TRAINING, min=1)] = 32768


@dataclass(frozen=True, kw_only=True)
class EvalSettings(InputSettings, EngineSettings, SamplingSettings, RewardSettings, RunSettings):
    """r1 eval"""

    model: Annotated[str | None, Flag("model folder, run directory or hub name (not needed for completion rows)", MODEL, short="m")] = None
    dtype: Annotated[str, Flag("computation type", MODEL, choices=("bfloat16", "float32", "float16"))] = "bfloat16"
    trust_remote_code: Annotated[bool, Flag("run code that comes with the model", MODEL)] = False
    benchmark: Annotated[str | None, Flag("a benchmark by name: its template, k and temperature (see `r1 eval --list-benchmarks`)", INPUT)] = None
    list_benchmarks: Annotated[bool, Flag("list the benchmarks and end", INPUT)] = False
    temperature: Annotated[float, Flag("0 is greedy", SAMPLING, min=0.0)] = 0.6
    top_p: Annotated[float, Flag("nucleus: smallest set of tokens with this probability", SAMPLING, min=0.0, max=1.0)] = 0.95
    rewards: Annotated[str, Flag("rewards; the first one decides what is correct", REWARDS, metavar="NAME[=W],...")] = "accuracy"
    json: Annotated[bool, Flag("one JSON object on stdout", OUTPUT)] = False
    rows: Annotated[str | None, Flag("file for the scored completion rows", OUTPUT)] = None
    out: Annotated[str | None, Flag("file for the scores as JSON", OUTPUT, short="o")] = None
    min: Annotated[list[str], Flag("exit 1 unless a score reaches a value (repeatable)", OUTPUT, metavar="SCORE=VALUE")] = field(default_factory=list)
    force: Annotated[bool, Flag("replace outputs that exist", OUTPUT)] = False


@dataclass(frozen=True, kw_only=True)
class ReportSettings(RunSettings):
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
    json: Annotated[bool, Flag("one JSON object on stdout", OUTPUT)] = False


@dataclass(frozen=True, kw_only=True)
class RewardsSettings(RunSettings):
    """r1 rewards"""

    json: Annotated[bool, Flag("one JSON object on stdout", OUTPUT)] = False


COMMANDS: dict[str, Any] = {
    "sample": SampleSettings,
    "reject": RejectSettings,
    "mix": MixSettings,
    "sft": SftSettings,
    "grpo": GrpoSettings,
    "distill": DistillSettings,
    "eval": EvalSettings,
    "report": ReportSettings,
    "check": CheckSettings,
    "rewards": RewardsSettings,
}
