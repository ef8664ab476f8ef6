"""What `vllm serve` gets to take weights over: `--worker-extension-cls r1cli.engines.vllm_worker.WeightReload`."""

from typing import Any

from r1cli.engines.vllm import _repack_tied


class WeightReload:
    """Mixed into vLLM's worker, whose methods `/collective_rpc` calls by name."""

    reload_weights: Any

    def r1_reload(self, folder: str) -> None:
        """Load the safetensors of a folder the worker can read, the packed output layer of a tied model included."""
        self.reload_weights(weights_path=folder)
        _repack_tied(self)
