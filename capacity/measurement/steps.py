"""A step or a pass of a network of the user's own, traced as it would run on a device, its tensors as shapes only."""

from __future__ import annotations

import warnings
from copy import deepcopy

import torch
from torch.utils._pytree import tree_leaves

from capacity.measurement.residency import Caches
from capacity.measurement.tracing import trace_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from capacity.spec.trace import Trace

# Optimizers of stock torch, as its defaults make them.
OPTIMIZERS: dict[str, tuple[str, dict[str, float]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "adamw": ("AdamW", {}),
    "adafactor": ("Adafactor", {}),
}
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def trace_step(
    network: Any,
    inputs: Sequence[tuple[str, tuple[int, ...], str]],
    device: str,
    inner_cache_bytes: float,
    last_cache_bytes: float,
    *,
    train: bool,
    precision: str = "fp32",
    optimizer: str = "adamw",
    channels_last: bool = False,
) -> Trace:
    """The calls of a training step, its loss the sum of all results, or of a pass.

    network: a module on meta. inputs: name ("" where it is passed by position), shape and torch's word for the format of each.
    precision: fp32, tf32, bf16 or fp16: weights are stored in 16 bits to infer, and cast to them at each use to train. Raises
    whatever the module's code raises.
    """
    sizes = {"inner_bytes": inner_cache_bytes, "last_bytes": last_cache_bytes}
    caches = Caches(**sizes) if device == "cpu" else Caches(**sizes, fresh_bytes=None)
    half = _HALF.get(precision)
    stored = None if train else half
    network = network.train(train)

    def made(shape: tuple[int, ...], word: str) -> Any:
        return _empty(shape, getattr(torch, word), device, stored, channels_last=channels_last)

    def loss(result: Any) -> Any:
        results = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor) and one.requires_grad]
        return sum(one.float().sum() for one in results)

    def update(weights: Any) -> Any:
        name, options = OPTIMIZERS[optimizer]
        return getattr(torch.optim, name)([one for one in weights if one.requires_grad], lr=1e-3, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trace_module(
            lambda: _copy(network, device, stored, channels_last=channels_last),
            caches,
            inputs=lambda: tuple(made(shape, word) for name, shape, word in inputs if not name),
            keywords=lambda: {name: made(shape, word) for name, shape, word in inputs if name},
            loss=loss if train else None,
            optimizer=update if train else None,
            autocast=half if train else None,
        )


def _empty(shape: tuple[int, ...], dtype: Any, device: str, stored: Any, *, channels_last: bool) -> Any:
    kind = stored if stored is not None and dtype.is_floating_point else dtype
    order = torch.channels_last if channels_last and len(shape) == 4 else torch.contiguous_format
    return torch.empty(shape, dtype=kind, device=device, memory_format=order)


def _copy(network: Any, device: str, stored: Any, *, channels_last: bool) -> Any:
    """A copy whose tensors lie on the device, where the tracer makes shapes of them."""
    memo: dict[int, Any] = {}
    for one in network.parameters():
        made = _empty(tuple(one.shape), one.dtype, device, stored, channels_last=channels_last)
        memo[id(one)] = torch.nn.Parameter(made, requires_grad=one.requires_grad)
    for one in network.buffers():
        if one.is_meta:
            memo[id(one)] = _empty(tuple(one.shape), one.dtype, device, stored, channels_last=False)
    return deepcopy(network, memo)
