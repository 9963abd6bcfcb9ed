"""The same decoder in every runtime that is installed: prefill and decode, and small decoders that their laws are fitted to."""

from __future__ import annotations

import tempfile

from capacity.measurement import opaque
from capacity.measurement.backends import DECODE, PREFILL, Task, backend, backends, require
from capacity.measurement.case import FULL, Kernel, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.backends import Backend
    from capacity.measurement.case import Machine

# Weights of 120 million products: in four bits still twice a last-level cache.
SHAPES = {
    "cpu": {"layers": 8, "width": 1024, "inner": 2816, "vocabulary": 16384},
    "cuda": {"layers": 16, "width": 2048, "inner": 8192, "vocabulary": 32000},
}
PROMPT, PAST = 128, 255
# Small decoders: (layers, width, inner, vocabulary), tokens of a pass, tokens before it.
_SMALL: tuple[tuple[tuple[int, int, int, int], int, int], ...] = (
    ((1, 512, 1024, 2048), 1, 31),
    ((1, 512, 1024, 2048), 1, 511),
    ((1, 512, 1024, 2048), 16, 0),
    ((1, 512, 1024, 2048), 128, 0),
    ((4, 768, 3072, 4096), 1, 63),
    ((4, 768, 3072, 4096), 96, 0),
    ((4, 1280, 3584, 2048), 1, 31),
    ((2, 1280, 3584, 8192), 48, 0),
)


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if profile != FULL:
        return
    for one in backends().values():
        if machine.device in one.devices:
            # Torch's own compressed products are those of a processor.
            for form in one.bits if machine.device == "cpu" or not one.traced else ("fp32", "bf16"):
                for phase in (PREFILL, DECODE):
                    past, tokens = (PAST, 1) if phase == DECODE else (0, PROMPT)
                    shape = SHAPES[machine.device]
                    yield {"backend": one.name, "form": form, **shape, "phase": phase, "tokens": tokens, "past": past}


def _small(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if profile != FULL or machine.device != "cpu":
        return
    for one in backends().values():
        for form in () if one.traced else one.bits:
            for shape, tokens, past in _SMALL:
                named = dict(zip(("layers", "width", "inner", "vocabulary"), shape, strict=True))
                yield {"backend": one.name, "form": form, **named, "tokens": tokens, "past": past}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    from capacity.measurement.workloads.decoder import Decoder

    runtime = backend(parameters["backend"])
    if opaque.tracing() and not runtime.traced:
        return Work(run=_announced(parameters, runtime))
    require(runtime, machine.device)
    torch.manual_seed(1)
    layers, width, inner, vocabulary = (parameters[name] for name in ("layers", "width", "inner", "vocabulary"))
    tokens, past = parameters["tokens"], parameters["past"]
    with torch.device(machine.device):
        decoder = Decoder(layers, width, inner, vocabulary, cache_tokens=past + tokens, batch=1).requires_grad_(False)
        given = torch.randint(0, vocabulary, (1, past + tokens))
    before = given[:, :past] if past else None
    with torch.no_grad():
        if past:
            decoder(before, 0)
        wanted = decoder(given[:, past:], past)[:, -1].float()
    folder = tempfile.TemporaryDirectory(prefix="capacity-")
    task = Task(parameters["form"], given[:, past:], before, machine.threads, machine.device, folder.name)
    flop, cache = decoder.flop(tokens), 2.0 * layers * past * width * 4.0
    session = runtime.load(decoder, task)
    del decoder

    def facts() -> dict[str, Any]:
        got = session.scores()
        return {
            "tokens": tokens, "weight_bytes": session.weight_bytes, "cache_bytes": cache, "disk_bytes": session.disk_bytes,
            "relative_error": float((got - wanted).norm() / wanted.norm()),
            "same_choice": float((got.argmax(-1) == wanted.argmax(-1)).float().mean()),
        }  # fmt: skip

    def close() -> None:
        if session.close is not None:
            session.close()
        folder.cleanup()

    return Work(run=session.run, flop=flop, moved_bytes=session.weight_bytes + cache, facts=facts, close=close)


def _announced(parameters: Mapping[str, Any], runtime: Backend) -> Any:
    """The products and the rest of each layer, for a runtime whose own calls cannot be seen."""
    import torch

    layers, width, inner, vocabulary = (parameters[name] for name in ("layers", "width", "inner", "vocabulary"))
    tokens, past, form = parameters["tokens"], parameters["past"], parameters["form"]
    bits = runtime.bits[form]
    name = f"{runtime.name}-{form}"

    def product(outputs: int, inputs: int, rows: int) -> Any:
        call = opaque.product(name, outputs, inputs, outputs * inputs * bits / 8.0)
        given = torch.empty(rows, inputs)
        return lambda: call(given)

    each = ((3 * width, width), (width, width), (2 * inner, width), (width, inner))
    products = [product(*shape, tokens) for _ in range(layers) for shape in each]
    head = product(vocabulary, width, 1)

    def run() -> None:
        for call in products:
            call()
        head()
        for _ in range(layers):
            opaque.call(f"{name} layer", elements=float(tokens * (width + inner)))
            opaque.call(f"{name} attention", elements=float(tokens * (tokens / 2.0 + past) * width))

    return run


FAMILIES = (
    Kernel(
        "runtime", "one decoder in every runtime installed", _cases, _build, kind="inference", time_s=300.0, effort=2.0,
        preload=("onnxscript", "torch.onnx"),
    ),
    Kernel(
        "runtime-layer", "small decoders in other runtimes", _small, _build, time_s=240.0, preload=("onnxscript", "torch.onnx")
    ),
)  # fmt: skip
