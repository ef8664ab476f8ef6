"""The flags that several commands share, each declared once, and what a flag is.

The commands' own are in `settings.py`. Nothing heavy is imported here.
"""

from dataclasses import dataclass, field
from typing import Annotated


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
DTYPES = ("auto", "bfloat16", "float32", "float16")
ENGINES = ("auto", "vllm", "transformers", "server")
SANDBOX_LEVELS = ("limits", "seccomp", "confined", "namespaces", "bubblewrap")
SCHEDULES = ("constant", "cosine", "linear")


_FILES = ("out", "rows", "rejected", "moved", "validation_out", "few_shot", "compare", "held_out", "eval", "traces", "accelerate_config")
_MODELS = ("model", "judge", "student", "teacher")
NAMES = frozenset({*_FILES, *_MODELS, "api_key_env", "benchmark", "margin", "stratify"})
"""Settings that name a file, a model or another thing: a text without a character names none. (Elsewhere it may turn something off.)"""


class Changing(str):
    """A whole number that changes at steps: `32768,65536@8200` is 32768, and 65536 from step 8200 on."""

    def switches(self) -> tuple[tuple[int, int], ...]:
        """(from this step on, value), the first from 0. Raises ValueError when the text says no such thing."""
        parts = [part.split("@") for part in self.split(",")]
        found = tuple((int(start[0]) if start else 0, int(value)) for value, *start in parts)
        starts = [start for start, _ in found]
        if any(len(part) > 2 for part in parts) or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"`{self}` does not name a first value and then VALUE@STEP with rising steps")
        return found


@dataclass(frozen=True, kw_only=True)
class SpeechSettings:
    """How much a command says. What every command has."""

    quiet: Annotated[int, Flag("say less on stderr (-qq: errors only)", RUN, short="q", metavar="")] = 0
    verbose: Annotated[bool, Flag("say more on stderr, library logs included", RUN, short="v")] = False
    debug: Annotated[bool, Flag("print the traceback of an error", RUN)] = False


@dataclass(frozen=True, kw_only=True)
class RunSettings(SpeechSettings):
    """What every command has that works through rows."""

    seed: Annotated[int, Flag("seed of every random choice", RUN)] = 0
    progress: Annotated[bool, Flag("show progress", RUN)] = True


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """Where rows come from."""

    inputs: Annotated[
        list[str],
        Flag("rows: JSONL (.gz, .zst), Parquet, a data set folder, hf:org/name@revision:split, or - for stdin", INPUT, positional=True),
    ]
    map: Annotated[list[str], Flag("read a field from another column (repeatable)", INPUT, metavar="FIELD=COLUMN")] = field(
        default_factory=list
    )
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
class StopSettings:
    """When a training run ends before its last step."""

    time_limit: Annotated[
        str | None,
        Flag(
            "save and end before this much time is over, if no step or save takes longer than before: 3h30m, 90m, 600 (seconds)",
            RUN,
            metavar="TIME",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model, loaded how."""

    model: Annotated[str, Flag("model folder, run directory, or hub name", MODEL, short="m")]
    dtype: Annotated[str, Flag("computation type; auto is bfloat16 where the hardware has it", MODEL, choices=DTYPES)] = "auto"
    trust_remote_code: Annotated[bool, Flag("run code that comes with the model", MODEL)] = False


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Which sampler."""

    engine: Annotated[
        str,
        Flag("sampler; auto is the server of --url, else vllm, else transformers where vllm cannot be imported", MODEL, choices=ENGINES),
    ] = "auto"
    max_model_len: Annotated[
        int | None, Flag("longest prompt + completion the engine makes room for (default: what the longest prompt needs)", MODEL, min=1)
    ] = None
    gpu_memory: Annotated[
        float | None, Flag("share of GPU memory vLLM may take (default: 0.9, or 0.3 beside a trainer)", MODEL, min=0.05, max=1.0)
    ] = None
    kv_cache_gib: Annotated[float, Flag("KV cache of vLLM on a CPU, in GiB", MODEL, min=0.1)] = 1.0
    batch_size: Annotated[
        int,
        Flag(
            "most sequences that are generated at the same time by an engine or a server; 0: 256 with vLLM on a GPU, else 64", MODEL, min=0
        ),
    ] = 0
    url: Annotated[
        list[str],
        Flag("OpenAI-compatible server to draw from, such as `vllm serve` (repeatable); --model is its name there, or a folder", MODEL),
    ] = field(default_factory=list)
    api_key_env: Annotated[str | None, Flag("environment variable that holds the key of the server", MODEL, metavar="NAME")] = None
    request_timeout: Annotated[float, Flag("seconds a server may take for one completion, to its last byte", MODEL, min=0.1)] = 1800.0
    retries: Annotated[int, Flag("times a completion may fail by an error of its server", MODEL, min=0)] = 8
    server_wait: Annotated[float, Flag("seconds to wait while no server gives anything", MODEL, min=0.1)] = 300.0


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """How a row's prompt becomes the text the model sees."""

    template: Annotated[
        str,
        Flag(
            "prompt template: chat, boxed (asks for \\boxed{}), reflect (asks for reflection and verification), r1-zero, raw, or a file "
            "with {prompt} in it; rewrite makes the reasoning of completion rows readable",
            SAMPLING,
        ),
    ] = "chat"
    system: Annotated[str | None, Flag("system message", SAMPLING)] = None
    think_prefix: Annotated[bool, Flag("open <think> in the prompt, for models that skip thinking", SAMPLING)] = False


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(PromptSettings):
    """How completions are drawn."""

    samples: Annotated[int, Flag("completions a prompt", SAMPLING, short="k", min=1)] = 1
    temperature: Annotated[float, Flag("0 is greedy", SAMPLING, min=0.0, max=2.0)] = 1.0
    top_p: Annotated[float, Flag("nucleus: smallest set of tokens with this probability", SAMPLING, min=0.0, max=1.0)] = 1.0
    top_k: Annotated[int, Flag("most likely tokens to draw from; 0 is all", SAMPLING, min=0)] = 0
    max_completion_length: Annotated[int, Flag("most new tokens a completion", SAMPLING, min=1)] = 1024
    stop: Annotated[list[str], Flag("end a completion after this string (repeatable)", SAMPLING)] = field(default_factory=list)
    shuffle_choices: Annotated[bool, Flag("put the options of rows with `choices` in an order drawn from --seed and id", SAMPLING)] = False


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """How completions are scored."""

    rewards: Annotated[
        str, Flag("rewards with weights: accuracy,format=0.5,path/to/file.py:function (see `r1 rewards`)", REWARDS, metavar="NAME[=W],...")
    ] = "accuracy,format"
    reward_workers: Annotated[int, Flag("reward processes; 0 is one per core", REWARDS, min=0)] = 0
    reward_timeout: Annotated[float, Flag("seconds a row may take before its reward is 0 and counted as a timeout", REWARDS, min=0.01)] = (
        5.0
    )
    sandbox_level: Annotated[str, Flag("least sandbox level at which model code runs", REWARDS, choices=SANDBOX_LEVELS)] = "confined"
    unsafe: Annotated[bool, Flag("run model code even where the sandbox does not reach that level", REWARDS)] = False


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters, for every command that trains (extra `lora`)."""

    lora: Annotated[int | None, Flag("train low-rank adapters of this rank instead of all weights", TRAINING, min=1, metavar="RANK")] = None
    lora_alpha: Annotated[float, Flag("the adapters weigh this / rank", TRAINING, min=0.001)] = 32.0
    lora_dropout: Annotated[float, Flag("share of the adapters' inputs that is left out", TRAINING, min=0.0, max=0.99)] = 0.0
    lora_targets: Annotated[
        str, Flag("layers with an adapter: all-linear, or names such as q_proj,v_proj", TRAINING, metavar="NAME,...")
    ] = "all-linear"
    lora_export: Annotated[
        str, Flag("what is saved: a plain model with the adapters merged in, or the adapters alone", OUTPUT, choices=("merged", "adapter"))
    ] = "merged"


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings:
    """Which reward models score beside the rules."""

    reward_model: Annotated[
        list[str],
        Flag(
            "reward model: NAME=MODEL[@STEP][:OPTION=VALUE]..., MODEL a folder or a server's address, such as "
            "helpful=CKPT:view=summary or harmless=CKPT:view=full:weight=0.5:set=safety (repeatable; docs/rewards.md)",
            REWARDS,
            metavar="NAME=MODEL",
        ),
    ] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer and the batches, for every command that trains."""

    lr: Annotated[float, Flag("peak learning rate", TRAINING, min=0.0)] = 1e-5
    lr_schedule: Annotated[str, Flag("shape of the learning rate after warm-up", TRAINING, choices=SCHEDULES)] = "constant"
    lr_floor: Annotated[float, Flag("last learning rate as a share of the peak", TRAINING, min=0.0, max=1.0)] = 0.1
    warmup_steps: Annotated[int, Flag("steps over which the learning rate rises from 0", TRAINING, min=0)] = 0
    weight_decay: Annotated[float, Flag("AdamW's weight decay", TRAINING, min=0.0)] = 0.0
    adam_beta2: Annotated[float, Flag("AdamW's beta2", TRAINING, min=0.0, max=0.999999)] = 0.999
    max_grad_norm: Annotated[float, Flag("gradients are scaled down to this norm; 0 is off", TRAINING, min=0.0)] = 1.0
    microbatch_tokens: Annotated[
        int,
        Flag("most tokens (padding included) a forward pass holds, halved when memory is out; 0: 8192, on a GPU 65536", TRAINING, min=0),
    ] = 0
    gradient_checkpointing: Annotated[bool, Flag("recompute activations in the backward pass: less memory, more time", TRAINING)] = False
    offload: Annotated[
        str | None,
        Flag("on a GPU: keep these in the machine's memory between their uses: optimizer, reference", TRAINING, metavar="PART,..."),
    ] = None
    save_every: Annotated[int, Flag("steps between checkpoints; 0: only where the run is ended early", TRAINING, min=0)] = 0
    keep: Annotated[int, Flag("checkpoints that stay on disk", TRAINING, min=1)] = 2


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """Training in several processes."""

    num_processes: Annotated[
        int,
        Flag(
            "processes that train together on this machine, one a GPU (or shares of the CPU); the result is that of one up to rounding "
            "(dropout draws other numbers)",
            RUN,
            min=1,
        ),
    ] = 1
    accelerate_config: Annotated[
        str | None, Flag("accelerate's configuration for them, such as FSDP2 (examples/accelerate/)", RUN, metavar="FILE")
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrackSettings:
    """Trackers beside metrics.jsonl."""

    track: Annotated[
        str | None, Flag("log metrics there too: tensorboard, wandb, trackio (pip install 'r1cli[track]')", RUN, metavar="NAME,...")
    ] = None
    project: Annotated[str | None, Flag("the trackers' project (default: r1- and the command)", RUN, metavar="NAME")] = None
    run_name: Annotated[str | None, Flag("the trackers' name of the run (default: the run directory's)", RUN, metavar="NAME")] = None
