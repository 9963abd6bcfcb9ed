"""torchao: weight-only int8 and int4, and int8 with activations quantised as they come, compiled.

On a processor torchao's eager products make the weight whole again at every call, ten times slower than no compression at all: it is
measured compiled, as it is meant to be used.
"""

from __future__ import annotations

import os

from capacity.measurement.backends.torch_own import session_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.measurement.backends import Session, Task
    from capacity.measurement.workloads.decoder import Decoder

GROUP = 32


class TorchAo:
    """torchao's weight formats under torch.compile."""

    name = "torchao"
    packages = {"torchao": "torchao"}
    bits = {"int8-weight": 8.0, "int4-weight": 4.0 + 32.0 / GROUP, "int8-dynamic": 8.0}
    devices = ("cpu", "cuda")
    traced = False

    def load(self, decoder: Decoder, task: Task) -> Session:
        """Products of the decoder quantised in place, then compiled for the one shape of the task."""
        import torch
        from torchao.quantization import quantize_

        from capacity.measurement.workloads.decoder import compress

        module: Any = compress(decoder, "bf16")
        weights = [part.weight.numel() for part in module.modules() if isinstance(part, torch.nn.Linear)]
        quantize_(module, _config(task.form))
        torch._dynamo.reset()  # a limit of recompilations would leave later shapes to eager without a word
        compiled = torch.compile(module, dynamic=False)
        stored = sum(weights) * self.bits[task.form] / 8.0
        return session_of(module, task, stored, lambda: _disk_bytes(module, task), compiled)


def _config(form: str) -> Any:
    import torch

    own: Any = torch  # its stubs lack int4
    from torchao import quantization
    from torchao.quantization.granularity import PerGroup

    if form == "int8-weight":
        return quantization.Int8WeightOnlyConfig()
    if form == "int8-dynamic":
        return quantization.Int8DynamicActivationInt8WeightConfig()
    return quantization.IntxWeightOnlyConfig(weight_dtype=own.int4, granularity=PerGroup(GROUP))


def _disk_bytes(module: Any, task: Task) -> float:
    import torch

    path = os.path.join(task.folder, "weights.pt")
    torch.save({name: value for name, value in module.state_dict().items() if "cache." not in name}, path)
    return float(os.path.getsize(path))
