"""Silence for the libraries underneath: their banners, logs and bars, unless --verbose.

They read their environment variables at import, so this runs before the first heavy import. A variable that the user has set stays.
"""

import os
import warnings

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TQDM_DISABLE": "1",
    "GLOG_minloglevel": "2",
}
ALWAYS = {"TOKENIZERS_PARALLELISM": "false"}  # reward workers are other processes: a tokenizer with threads warns at each fork


def quiet_libraries(*, verbose: bool) -> None:
    """Set what the libraries look at when they are imported. Call it before they are."""
    for name, value in ALWAYS.items() if verbose else {**ALWAYS, **QUIET}.items():
        os.environ.setdefault(name, value)
    if not verbose:
        warnings.simplefilter("ignore")
