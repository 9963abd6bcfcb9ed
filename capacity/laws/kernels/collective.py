"""Collectives inside a node."""

from __future__ import annotations

from capacity import ops
from capacity.laws.kernels.overlap import MICROSECOND, smooth_min

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.laws.kernels.facts import Facts
    from capacity.laws.kernels.overlap import Parameters


def collective(facts: Facts, p: Parameters, kind: str, n: Any, message: Any) -> Any:
    """Seconds of one collective of `message` bytes over n devices of a node; kind all_reduce | all_gather | reduce_scatter | alltoall.

    1. Ring: steps = (n-1) (twice for all-reduce), wire bytes = steps/n x message; base = a + b steps us.
    2. Small: smooth min of LL (slope 1/eL) and LL128 (aM us, slope 1/eM).
    3. From th MB a device the library switches to the Simple protocol (its own model, often late: a jump): aS + bS steps us + wire/(eW link)
       + gam message/link (gr times for all-reduce) for copying the buffer itself.
    4. All-to-all: base a ax + ba (n-1), a plateau min(message/(eP link), aP us), wire/(eA link) + ga message/link.
    5. Without a switch (PCIe through the host) the link is shared: divided by pc4 at 3-4 devices, pc8 above.
    """
    link = (
        facts.link_bytes_per_s
        if facts.switched
        else facts.link_bytes_per_s / ops.where(n <= 2, 1.0, ops.where(n <= 4, p["pc4"], p["pc8"]))
    )
    if kind == "alltoall":
        base = (p["a"] * p["ax"] + p["ba"] * (n - 1)) * MICROSECOND
        return (
            base
            + smooth_min(message / (link * p["eP"]), p["aP"] * MICROSECOND + 0.0 * message, 4.0)
            + (n - 1) / n * message / (link * p["eA"])
            + p["ga"] * message / link
        )
    reduce = kind == "all_reduce"
    steps = (n - 1) * (2.0 if reduce else 1.0)
    wire = steps / n * message
    base = (p["a"] * (p["ar"] if reduce else 1.0) + p["b"] * steps) * MICROSECOND
    low = smooth_min(
        wire / (link * p["eL"]), p["aM"] * MICROSECOND * (1.0 + steps / 10.0) + wire / (link * p["eM"]), 4.0
    )
    high = (
        (p["aS"] + p["bS"] * steps) * MICROSECOND
        + wire / (link * p["eW"])
        + p["gam"] * (p["gr"] if reduce else 1.0) * message / link
    )
    s = 1.0 / (1.0 + (message / (p["th"] * 1e6 * n)) ** -8.0)
    return base + low * (1.0 - s) + high * s
