"""Memory: copy and triad at each level of the caches, and the first touch of fresh pages."""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    sizes = (16, 128, 512, 4096, 16384, 131072) if machine.device == "cpu" else (512, 8192, 65536, 524288, 4194304)
    for op in ("copy", "triad"):
        for kibibytes in sizes if profile == FULL else (sizes[2], sizes[-1]):
            yield {"op": op, "KiB": kibibytes}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    elements = int(parameters["KiB"] * 1024 // 4)
    target = torch.zeros(elements, device=machine.device)
    left = torch.randn(elements, device=machine.device)
    if parameters["op"] == "copy":
        return Work(run=lambda: target.copy_(left), moved_bytes=8.0 * elements)
    right = torch.randn(elements, device=machine.device)
    return Work(
        run=lambda: torch.add(left, right, alpha=3.0, out=target), flop=2.0 * elements, moved_bytes=12.0 * elements
    )


def _touch_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    for mebibytes in (8, 24, 31, 34, 64, 128) if profile == FULL else (31, 34):
        yield {"MiB": mebibytes}


def _build_touch(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    elements = int(parameters["MiB"] * 2**20 // 4)
    return Work(run=lambda: torch.empty(elements, device=machine.device).fill_(1.0), moved_bytes=4.0 * elements)


FAMILIES = (
    Kernel("memory", "copy and triad at each memory level", _cases, _build),
    Kernel("first-touch", "fill a new tensor: above 32 MiB the system gives fresh pages", _touch_cases, _build_touch),
)
