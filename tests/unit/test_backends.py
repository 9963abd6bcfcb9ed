"""Runtimes behind one interface: the same decoder gives the same scores in each, and a missing one says what installs it."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from capacity.errors import UnknownNameError
from capacity.measurement import backends
from capacity.measurement.backends import Session, Task, backend
from capacity.measurement.case import FULL, Case, Machine, NotSupportedError
from capacity.measurement.registry import KERNELS, cases
from capacity.measurement.residency import Caches
from capacity.measurement.tracing import trace_case
from capacity.measurement.workloads.decoder import Decoder

SHAPE = {"layers": 1, "width": 128, "inner": 192, "vocabulary": 160}


@pytest.fixture(scope="module")
def decoded():
    """A small decoder, tokens before, the next one, and the exact scores after it."""
    torch.manual_seed(3)
    exact = Decoder(*SHAPE.values(), cache_tokens=16, batch=1).requires_grad_(False)
    tokens = torch.randint(0, SHAPE["vocabulary"], (1, 16))
    exact(tokens[:, :15], 0)
    return exact, tokens, exact(tokens[:, 15:], 15)[:, -1]


def error_of(name, form, decoded, tmp_path, machine=None):
    exact, tokens, wanted = decoded
    machine = machine or Machine()
    copy = Decoder(*exact.arguments).requires_grad_(False)
    copy.load_state_dict(exact.state_dict())
    task = Task(form, tokens[:, 15:], tokens[:, :15], machine.threads, "cpu", str(tmp_path))
    session: Session = backend(name).load(copy, task)
    for _ in range(2):  # a pass must leave the cache as it found it
        session.run()
    error = float((session.scores() - wanted).norm() / wanted.norm())
    weights = sum(part.weight.numel() for part in exact.modules() if isinstance(part, torch.nn.Linear))
    # Packing may round up, and torch keeps scales beside the weights.
    assert session.weight_bytes == pytest.approx(weights * backend(name).bits[form] / 8.0, rel=0.05)
    assert session.disk_bytes > session.weight_bytes
    if session.close:
        session.close()
    return error


@pytest.mark.parametrize(
    ("name", "form", "most"),
    [
        ("torch", "fp32", 1e-6),
        ("torch", "bf16", 0.03),
        ("torch", "int8-weight", 0.05),
        ("onnxruntime", "fp32", 1e-5),
        ("onnxruntime", "int8-dynamic", 0.1),
        ("llama.cpp", "f16", 0.01),
        ("llama.cpp", "q8_0", 0.05),
    ],
)
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_a_runtime_computes_what_the_decoder_computes(name, form, most, decoded, tmp_path):
    try:
        backends.require(backend(name))
    except NotSupportedError as missing:
        pytest.skip(str(missing))
    assert error_of(name, form, decoded, tmp_path) < most


def test_a_gguf_file_holds_the_decoder(decoded, tmp_path):
    import gguf

    from capacity.measurement.backends.llama import write_gguf

    exact = decoded[0]
    products = write_gguf(exact, str(tmp_path / "x.gguf"), "q4_0")
    assert products == sum(part.weight.numel() for part in exact.modules() if isinstance(part, torch.nn.Linear))
    tensors = {one.name: one for one in gguf.GGUFReader(str(tmp_path / "x.gguf")).tensors}
    assert len(tensors) == 9 * SHAPE["layers"] + 3
    keys = exact.layers[0].qkv.weight[SHAPE["width"] : 2 * SHAPE["width"]]
    stored = tensors["blk.0.attn_k.weight"]
    back = torch.from_numpy(gguf.quants.dequantize(stored.data, stored.tensor_type))
    assert float((back - keys).norm() / keys.norm()) < 0.12
    assert stored.n_bytes == keys.numel() * 4.5 / 8.0


def test_what_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    parameters = {"backend": "llama.cpp", "form": "q4_0", **SHAPE, "tokens": 1, "past": 3}
    with pytest.raises(NotSupportedError, match=r"llama\.cpp is not installed: pip install llama-cpp-python gguf"):
        KERNELS["runtime"].build(parameters, Machine())
    with pytest.raises(UnknownNameError, match=r"llama\.cpp"):
        backend("lama.cpp")


def test_every_form_of_every_runtime_has_cases_and_small_decoders_to_fit():
    known = backends.backends()
    whole = {(one.parameters["backend"], one.parameters["form"]) for one in cases(FULL, Machine(), ["runtime"])}
    small = {(one.parameters["backend"], one.parameters["form"]) for one in cases(FULL, Machine(), ["runtime-layer"])}
    assert whole == {(name, form) for name, one in known.items() for form in one.bits}
    assert small == {pair for pair in whole if not known[pair[0]].traced}
    assert KERNELS["runtime"].kind == "inference"  # never fitted on
    assert KERNELS["runtime-layer"].kind == "kernel"
    fitted = {(one.parameters["width"], one.parameters["layers"]) for one in cases(FULL, Machine(), ["runtime-layer"])}
    for one in cases(FULL, Machine(), ["runtime"]):
        assert (one.parameters["width"], one.parameters["layers"]) not in fitted


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_products_of_another_runtime_are_announced_by_their_bytes():
    parameters = {"backend": "torchao", "form": "int8-weight", **SHAPE, "tokens": 1, "past": 15}
    trace = trace_case(Case("runtime", parameters), Machine(), Caches(2.0**10, 2.0**11))
    products = [op for op in trace.ops if op.kind == "product"]
    assert sum(op.calls for op in products) == 4 * SHAPE["layers"] + 1
    far = sum(op.calls * op.far_bytes for op in products)
    weights = 4 * 128 * 128 + 3 * 128 * 192 + 160 * 128
    assert far == pytest.approx(weights, rel=0.2)
    assert {op.name for op in trace.ops if op.kind == "other"} == {
        "torchao-int8-weight layer",
        "torchao-int8-weight attention",
    }
