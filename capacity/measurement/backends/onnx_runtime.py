"""ONNX Runtime: the decoder exported by torch, dense, in int8 with activations quantised as they come, and weight-only int4."""

from __future__ import annotations

import os

from capacity.measurement.backends import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.measurement.backends import Task
    from capacity.measurement.workloads.decoder import Decoder

GROUP = 32
# Products in int8 inside, as llama.cpp does: the fastest of the accuracy levels of MatMulNBits.
INT8_INSIDE = 4


class OnnxRuntime:
    """The CPU provider of ONNX Runtime."""

    name = "onnxruntime"
    packages = {"onnxruntime": "onnxruntime", "onnx": "onnx", "onnxscript": "onnxscript"}
    bits = {"fp32": 32.0, "int8-dynamic": 8.0, "int4-weight": 4.0 + 32.0 / GROUP}
    devices = ("cpu",)
    traced = False

    def load(self, decoder: Decoder, task: Task) -> Session:
        """A session on the exported graph; keys and values of the past are inputs of it."""
        import numpy as np
        import onnxruntime

        with_past, keys_values = _functional(decoder, task)
        path = _quantised(_exported(with_past, task, keys_values), task)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        given = [task.tokens.numpy(), keys_values.numpy()]
        feeds = {one.name: np.ascontiguousarray(value) for one, value in zip(session.get_inputs(), given, strict=False)}
        outputs = [one.name for one in session.get_outputs()]
        weights = sum(_elements(part) for part in decoder.modules() if type(part).__name__ == "Linear")

        def scores() -> Any:
            import torch

            return torch.from_numpy(session.run(outputs[:1], feeds)[0])[:, -1].float()

        return Session(
            run=lambda: session.run(outputs, feeds),
            scores=scores,
            weight_bytes=weights * self.bits[task.form] / 8.0,
            disk_bytes=_size(path),
        )


def _elements(linear: Any) -> int:
    return int(linear.weight.numel())


def _functional(decoder: Decoder, task: Task) -> tuple[Any, Any]:
    """The decoder with its cache as input and output, and the cache of the past: (layers, 2, batch, heads, tokens, size)."""
    import torch
    from torch.nn import functional

    from capacity.measurement.workloads.decoder import HEAD_SIZE

    class WithPast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, tokens: Any, past: Any) -> tuple[Any, Any]:
            x = decoder.tokens(tokens)
            new = []
            for index, layer in enumerate(decoder.layers):
                batch, length, width = x.shape
                parts = layer.qkv(layer.norm_1(x)).view(batch, length, 3, layer.heads, HEAD_SIZE).permute(2, 0, 3, 1, 4)
                seen = torch.cat((past[index], parts[1:]), 3)
                new.append(parts[1:])
                mixed = functional.scaled_dot_product_attention(parts[0], seen[0], seen[1], is_causal=length > 1)
                x = x + layer.out(mixed.transpose(1, 2).reshape(batch, length, width))
                gate, up = layer.up(layer.norm_2(x)).chunk(2, -1)
                x = x + layer.down(functional.silu(gate) * up)
            return decoder.head(decoder.norm(x[:, -1:])), torch.stack(new)

    module = WithPast().eval()
    heads = decoder.layers[0].heads
    past = torch.zeros(len(decoder.layers), 2, task.tokens.shape[0], heads, 0, HEAD_SIZE)
    if task.past is not None:
        with torch.no_grad():
            past = module(task.past, past)[1]
    return module, past


def _exported(module: Any, task: Task, past: Any) -> str:
    """Write the graph for the shapes of the task; torch's exporter talks a lot."""
    import contextlib
    import io
    import logging
    import warnings

    import torch

    path = os.path.join(task.folder, "decoder.onnx")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (task.tokens, past), path, dynamo=True, external_data=True, verbose=False)
    return path


def _quantised(path: str, task: Task) -> str:
    """The graph with its products in another form."""
    import logging

    target = os.path.join(task.folder, f"decoder-{task.form}.onnx")
    logging.getLogger().setLevel(logging.ERROR)
    if task.form == "int8-dynamic":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            path, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"], use_external_data_format=True
        )
        return target
    if task.form == "int4-weight":
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantiser = MatMulNBitsQuantizer(
            onnx.load(path), block_size=GROUP, is_symmetric=True, accuracy_level=INT8_INSIDE
        )
        quantiser.process()
        quantiser.model.save_model_to_file(target, True)
        return target
    return path


def _size(path: str) -> float:
    """A graph and the file its weights lie in."""
    return float(sum(os.path.getsize(one) for one in (path, path + ".data") if os.path.exists(one)))
