"""What was fitted about a device, or carried to it from its architecture."""

from __future__ import annotations

import os

from capacity.errors import FileFormatError
from capacity.formula import Sourced
from capacity.record import Record
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.spec.device import Device

# One file an architecture, and composed.toml for the intervals of whole answers.
FITTED = os.path.join(os.path.dirname(__file__), "fitted")

# Architectures without measurements of their own take the nearest that has some.
_STAND_INS = {
    "blackwell-ultra": "blackwell",
    # Consumer and workstation Blackwell: multiprocessors of Ada's make, fed by GDDR.
    "blackwell-rtx": "ada",
    "cdna1": "gpu",
    "cdna2": "gpu",
    "cdna3": "gpu",
    "cdna4": "gpu",
}
_BY_KIND = {"GPU": "gpu", "TPU": "tpu", "ASIC": "accelerator", "CPU": "cpu", "Apple": "apple", "edge": "edge"}


class GemmShares(Record):
    """Reachable shares of one precision: of the dense peak, of the bandwidth, and the launch time."""

    share_of_peak: float
    share_of_bandwidth: float
    launch_s: float


class Profile(Record):
    """Parameters of the kernel laws for one architecture.

    gemm: by weight format ("bf16", "fp8", "int8", "int4", "fp4", ...; "" for any other).
    basis: "measured" when fitted on this architecture, "prior" when carried from others.
    """

    name: str
    basis: str
    source: str
    gemm: dict[str, GemmShares]
    depth_half: float
    wave_weight: float
    prefill_share_of_peak: float
    queries_half: float
    decode_share_of_bandwidth: float
    attention_launch_s: float
    elementwise_share_of_bandwidth: float
    elementwise_launch_s: float
    link_share: float
    link_base_latency_s: float
    inter_share: float
    inter_latency_s: float
    sustained_share: float
    host_layer_s: float
    context_bytes: float
    least_rows: float = 16.0

    def gemm_shares(self, dtype: str) -> GemmShares:
        """Shares for a weight format; one never measured takes the architecture's general ones."""
        return self.gemm.get(dtype) or self.gemm[""]


def load_profile(device: Device) -> Profile:
    """The profile of a device's architecture, or of its kind where the architecture was never measured.

    A user's folder that brings the device may bring its profile: `<folder>/profiles/<id>.toml`.
    """
    own = os.path.join(device.origin, "profiles", f"{device.id}.toml") if device.origin != "catalogue" else ""
    if own and os.path.isfile(own):
        try:
            return _profile(read_toml(own, keep=False))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{own}: is no kernel profile ({str(error)[:80]})") from None
    kind = _BY_KIND.get(device.kind, "gpu")
    # An embedded GPU shares its architecture's name with data-centre cards, not their launches and memory.
    data = (_read(_STAND_INS.get(device.architecture, device.architecture)) if kind != "edge" else None) or _read(kind)
    if data is None:
        raise FileFormatError(f"no kernel profile for {device.id} ({device.architecture}, {device.kind})")
    return _profile(data)


def _read(name: str) -> dict[str, Any] | None:
    path = os.path.join(FITTED, f"{name}.toml")
    return read_toml(path) if os.path.isfile(path) else None


def _profile(data: dict[str, Any]) -> Profile:
    source = f"{data['source']} ({data['date']})"
    tag = "measured" if data["basis"] == "measured" else "inferred"

    def datum(label: str, value: float) -> Sourced:
        return Sourced(value, label, source, tag)

    gemm = {
        ("" if dtype == "other" else dtype): GemmShares(
            datum(f"share_of_peak[{dtype}]", row["share_of_peak"]),
            datum(f"share_of_bandwidth[{dtype}]", row["share_of_bandwidth"]),
            datum(f"launch_s[{dtype}]", row["launch_us"] * 1e-6),
        )
        for dtype, row in data["gemm"].items()
    }
    values = {key: datum(key, value) for key, value in data["laws"].items()}
    return Profile(name=data["name"], basis=data["basis"], source=source, gemm=gemm, **values)
