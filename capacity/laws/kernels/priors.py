"""Architectures nobody measured kernels on: the pool's law with the shares and launches known of their kind.

A law's shape terms (tiles, waves, splits, families) are carried from the pool. What sets the level is taken from the
architecture's own file in `fitted/`, or its kind's: CDNA, TPU, Gaudi, Apple, x86 and ARM differ by those first.
"""

from __future__ import annotations

from capacity.laws.kernels.overlap import MICROSECOND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from capacity.laws.kernels.facts import Facts
    from capacity.laws.profile import GemmShares, Profile

# What a dtype of the kernel tables is called in an architecture's file.
_FORMATS = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "sq": "int8",
    "nvfp4": "fp4",
    "int8_wo": "int8",
    "int4_wo": "int4",
    "w4a16_mxfp4": "int4",
    "w4a8_mxfp4_mxfp8": "fp4",
}
# Caches feed the units at least this many times as fast as memory: without it a machine of few FLOPs would starve.
CACHE_OVER_MEMORY = 4.0


def with_prior(op: str, sub: str, parameters: Mapping[str, float], profile: Profile, facts: Facts) -> dict[str, float]:
    """The pool's parameters of an op and dtype at the level of an architecture's own profile."""
    found = dict(parameters)
    if "lam" in found:
        found["lam"] = max(found["lam"], CACHE_OVER_MEMORY * facts.memory_bytes_per_s / facts.peak16_flop_per_s)
    shares = _shares(sub, profile)
    if op == "gemm":
        found |= {
            "ec": shares.share_of_peak,
            "eb": shares.share_of_bandwidth,
            "t0": shares.launch_s / facts.kiloclock_s,
        }
    elif op == "prefill":
        found |= {"ec": profile.prefill_share_of_peak, "t0": profile.attention_launch_s / facts.kiloclock_s}
    elif op == "decode":
        found |= {"eb": profile.decode_share_of_bandwidth, "t0": profile.attention_launch_s / facts.kiloclock_s}
    elif op == "expert":
        # Grouped products reach less of the peak than one product of their size: the pool's ratio is kept.
        found |= {"ec": min(parameters["ec"], shares.share_of_peak), "eb": shares.share_of_bandwidth}
    elif op == "collective":
        found |= {"a": profile.link_base_latency_s / MICROSECOND}
    return found


def _shares(sub: str, profile: Profile) -> GemmShares:
    return profile.gemm_shares(_FORMATS.get(sub.partition("|")[0].partition("/")[0], ""))
