"""Runtimes that can run the decoder of `workloads.decoder`, behind one interface, so that the same ruler measures all.

A back end is optional: where its packages are missing, its cases say so and what to install. To add one, write a module with a
class that fits `Backend` and name it in `ALL`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

from capacity.errors import UnknownNameError
from capacity.measurement.case import NotSupportedError
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from capacity.measurement.workloads.decoder import Decoder

PREFILL, DECODE = "prefill", "decode"


class Task(Record):
    """What is asked of a runtime.

    form: how weights are stored and multiplied, in the runtime's own words. tokens: (batch, length) whole numbers: the prompt, or the one new
    token; past: the tokens before it, (batch, length), of which keys and values are held. folder: for files of the model.
    """

    form: str
    tokens: Any
    past: Any = None
    threads: int = 1
    device: str = "cpu"
    folder: str = ""


class Session(Record):
    """A model that stands ready.

    run: one pass over the task's tokens, any number of times. scores: of the vocabulary after the last token, (batch,
    vocabulary) in fp32, from one more pass. weight_bytes: of all products, as stored; disk_bytes: of the model's files.
    """

    run: Callable[[], object]
    scores: Callable[[], Any]
    weight_bytes: float
    disk_bytes: float
    close: Callable[[], object] | None = None


class Backend(Protocol):
    """A runtime."""

    @property
    def name(self) -> str:
        """What cases call it."""

    @property
    def packages(self) -> dict[str, str]:
        """Modules it needs, each to the name it is installed by."""

    @property
    def bits(self) -> dict[str, float]:
        """Its forms, each to the bits of one stored weight, scales included."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Where it runs."""

    @property
    def traced(self) -> bool:
        """Whether the library calls it makes are torch's, and can be traced."""

    def load(self, decoder: Decoder, task: Task) -> Session:
        """The decoder in the runtime's own form; it may take the decoder's weights."""


def backends() -> dict[str, Backend]:
    """All back ends by name, installed or not."""
    from capacity.measurement.backends import llama, onnx_runtime, torch_ao, torch_own

    every: tuple[Backend, ...] = (torch_own.Torch(), torch_ao.TorchAo(), onnx_runtime.OnnxRuntime(), llama.LlamaCpp())
    return {one.name: one for one in every}


def backend(name: str) -> Backend:
    """A back end by name; raises UnknownNameError."""
    known = backends()
    if name not in known:
        raise UnknownNameError("back end", name, known)
    return known[name]


def require(one: Backend, device: str = "cpu") -> None:
    """Raise NotSupportedError where the back end's packages are missing, with what installs them."""
    if device not in one.devices:
        raise NotSupportedError(f"{one.name} is measured on {' and '.join(one.devices)} only")
    missing = [package for module, package in one.packages.items() if find_spec(module) is None]
    if missing:
        raise NotSupportedError(f"{one.name} is not installed: pip install {' '.join(missing)}")
