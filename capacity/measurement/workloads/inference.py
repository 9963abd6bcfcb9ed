"""Compressed inference: one decoder in every form, prefill and decode apart, with what compression costs in exactness."""

from __future__ import annotations

import os
import tempfile

from capacity.measurement.case import FULL, Kernel, NotSupportedError, Work
from capacity.measurement.kernels.quantised import FORMATS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

SHAPES = {
    "cpu": {"layers": 4, "width": 768, "inner": 2048, "vocabulary": 8192},
    "cuda": {"layers": 16, "width": 2048, "inner": 8192, "vocabulary": 32000},
}
SMALL = {"layers": 6, "width": 512, "inner": 1536, "vocabulary": 4096}
PROMPT = 128
CACHE = 256
# Weights: how they are stored and multiplied; see `compress`.
FORMS = (
    "fp32", "bf16", *FORMATS, "pruned-0.9", "2of4", "csr-0.5", "csr-0.8", "csr-0.9", "csr-0.95", "narrow-0.5", "low-rank-0.25",
)  # fmt: skip


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    shape = SHAPES[machine.device]
    if profile != FULL:
        for form in ("bf16", "int8-weight"):
            yield {**shape, "form": form, "cache": "wide", "phase": "decode", "batch": 1}
        return
    forms = FORMS if machine.device == "cpu" else tuple(form for form in FORMS if form not in FORMATS)
    for phase in ("prefill", "decode"):
        for form in forms:
            yield {**shape, "form": form, "cache": "wide", "phase": phase, "batch": 1}
        yield {**shape, "form": "bf16", "cache": "int8", "phase": phase, "batch": 1}
        for form in ("fp32", "bf16", *FORMATS) if machine.device == "cpu" else ("fp32", "bf16"):
            yield {**SMALL, "form": form, "cache": "wide", "phase": phase, "batch": 4}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    from capacity.measurement.workloads.decoder import Decoder, compress, stored_bytes

    if parameters["form"] == "2of4" and machine.device != "cuda":
        raise NotSupportedError("2:4 products exist on CUDA only")
    torch.manual_seed(1)
    shape = {name: parameters[name] for name in ("layers", "width", "inner", "vocabulary")}
    batch = parameters["batch"]
    with torch.device(machine.device):
        exact = Decoder(**shape, cache_tokens=CACHE, batch=batch)
    prompt = torch.randint(0, shape["vocabulary"], (batch, PROMPT), device=machine.device)
    token = prompt[:, :1]
    with torch.no_grad():
        wanted = exact(prompt, 0)[:, -1].float()
        module = compress(exact, parameters["form"], small_cache=parameters["cache"] == "int8")
        got = module(prompt, 0)[:, -1].float()
        # Only now: compression may have taken the weights of the exact one.
        del exact
    tokens, place = (prompt, 0) if parameters["phase"] == "prefill" else (token, CACHE - 1)

    def run() -> None:
        with torch.no_grad():
            module(tokens, place)

    weights = module.weight_bytes()
    cache = module.cache_bytes() if parameters["phase"] == "decode" else 0.0

    def facts() -> dict[str, Any]:
        return {
            "tokens": batch * (PROMPT if parameters["phase"] == "prefill" else 1),
            "weight_bytes": weights,
            "cache_bytes": module.cache_bytes(),
            "disk_bytes": stored_bytes(module, tempfile.mkdtemp() if not os.environ.get("TMPDIR") else None),
            "relative_error": float((got - wanted).norm() / wanted.norm()),
            "same_choice": float((got.argmax(-1) == wanted.argmax(-1)).float().mean()),
        }

    return Work(run=run, flop=module.flop(batch * tokens.shape[1]), moved_bytes=weights + cache, facts=facts)


def _distillation(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    del machine
    if profile != FULL:
        return
    for dtype in ("fp32", "bf16"):
        yield {"teacher": 6, "student": 2, "width": 384, "vocabulary": 4096, "length": 128, "batch": 2, "dtype": dtype}


def _build_distillation(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch
    from torch.nn import functional

    from capacity.measurement.workloads.models import network
    from capacity.measurement.workloads.training import optimizer_of

    common = {"family": "gpt", **{name: parameters[name] for name in ("width", "vocabulary", "length", "batch")}}
    teacher, (inputs, _), _ = network({**common, "layers": parameters["teacher"]}, machine.device)
    student, _, _ = network({**common, "layers": parameters["student"]}, machine.device)
    optimizer = optimizer_of("adamw-fused", student.parameters())
    held: dict[str, Any] = {}
    half = parameters["dtype"] == "bf16"

    def autocast() -> Any:
        return torch.autocast(machine.device, torch.bfloat16, enabled=half)

    def teach() -> None:
        with torch.no_grad(), autocast():
            held["wanted"] = teacher(inputs)

    def forward() -> None:
        with autocast():
            held["got"] = student(inputs)

    def loss() -> None:
        # Kullback-Leibler divergence of the student from the teacher, token by token.
        got = functional.log_softmax(held.pop("got").float(), -1).flatten(0, 1)
        wanted = functional.log_softmax(held.pop("wanted").float(), -1).flatten(0, 1)
        held["loss"] = functional.kl_div(got, wanted, reduction="batchmean", log_target=True)

    def backward() -> None:
        held.pop("loss").backward()

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Work(
        phases=(("teacher", teach), ("forward", forward), ("loss", loss), ("backward", backward), ("optimizer", update))
    )


FAMILIES = (
    Kernel("inference", "a decoder in every compressed form", _cases, _build, kind="inference", time_s=120.0, effort=2.0),
    Kernel(
        "distillation", "a student's step beside its teacher", _distillation, _build_distillation, kind="inference",
        time_s=120.0, effort=3.0,
    ),
)  # fmt: skip
