"""Copies between host and accelerator, pageable and pinned, in both directions."""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device == "cpu":
        return
    for direction in ("to-device", "to-host"):
        for pinned in (True, False):
            for kibibytes in (4, 256, 16384, 262144) if profile == FULL else (262144,):
                yield {"direction": direction, "pinned": pinned, "KiB": kibibytes}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    elements = int(parameters["KiB"] * 1024 // 4)
    host = torch.randn(elements, pin_memory=parameters["pinned"])
    device = torch.empty(elements, device=machine.device)
    there = parameters["direction"] == "to-device"
    target, source = (device, host) if there else (host, device)
    return Work(run=lambda: target.copy_(source, non_blocking=parameters["pinned"]), moved_bytes=4.0 * elements)


FAMILIES = (Kernel("host-device", "copies over the bus", _cases, _build),)
