"""Fused attention, forward and backward, and decoding against a cache."""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel, Work
from capacity.measurement.kernels.operands import WIDTH_BYTES, dtype_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    scale = 1 if machine.device == "cpu" else 8
    shapes = [
        (1, 4, 128, 64),
        (2, 8, 256, 64),
        (1, 8, 512, 64),
        (4, 4, 64, 32),
        (8, 6, 196, 64),
        (2, 12, 384, 64),
        (1, 8, 1024, 64),
        (1, 4, 256, 128),
    ]
    for dtype in ("fp32", "bf16"):
        for sequences, heads, length, size in shapes if profile == FULL else shapes[:2]:
            for backward in (False, True):
                for causal in (True, False) if profile == FULL else (True,):
                    yield {
                        "dtype": dtype,
                        "sequences": sequences,
                        "heads": heads * scale,
                        "queries": length,
                        "keys": length,
                        "size": size,
                        "causal": causal,
                        "backward": backward,
                    }


def _decode(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    scale = 1 if machine.device == "cpu" else 4
    shapes = ((1, 16, 384), (1, 8, 128), (2, 12, 1024), (8, 8, 512), (4, 4, 640))
    for dtype in ("fp32", "bf16"):
        for sequences, heads, keys in shapes if profile == FULL else shapes[:1]:
            for queries in (1, 96) if profile == FULL else (1,):
                yield {
                    "dtype": dtype, "sequences": sequences, "heads": heads * scale, "queries": queries, "keys": max(keys, queries),
                    "size": 64, "causal": False, "backward": False, "cached": True,
                }  # fmt: skip


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    b, h, q, k, d = (parameters[name] for name in ("sequences", "heads", "queries", "keys", "size"))
    dtype, causal, backward = parameters["dtype"], parameters["causal"], parameters["backward"]

    def numbers(length: int) -> Any:
        if parameters.get("cached"):  # keys of a head lie together
            return torch.randn(b, h, length, d, device=machine.device).to(dtype_of(dtype))
        # As a model makes them: one projection, split into heads by a view.
        flat = torch.randn(b, length, h * d, device=machine.device).to(dtype_of(dtype))
        return flat.view(b, length, h, d).transpose(1, 2).requires_grad_(backward)

    query, key, value = numbers(q), numbers(k), numbers(k)
    # Two products forward; backward rebuilds the scores and makes four more. Causal attention does half of it.
    flop = 4.0 * b * h * q * k * d * (0.5 if causal else 1.0)
    moved = b * h * (2 * q + 2 * k) * d * WIDTH_BYTES[dtype]
    if not backward:

        def forward() -> None:
            with torch.no_grad():
                attention(query, key, value, is_causal=causal)

        return Work(run=forward, flop=flop, moved_bytes=float(moved))
    result = attention(query, key, value, is_causal=causal)
    gradient = torch.ones_like(result)

    def run() -> None:
        torch.autograd.grad(result, (query, key, value), gradient, retain_graph=True)

    return Work(run=run, flop=2.5 * flop, moved_bytes=2.0 * moved)


FAMILIES = (
    Kernel("attention", "fused attention over whole sequences", _cases, _build),
    Kernel("attention-decode", "new tokens against cached keys", _decode, _build),
)
