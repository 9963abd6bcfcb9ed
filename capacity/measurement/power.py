"""Modelled energy, where no counter can be read: watts of a core, as published for servers like this one, by the time cores were busy.

The watts are given to the suite from outside and stand in the record of the environment. What comes of them is an
estimate with an interval, and every measurement that holds one says so (`energy_source` is "modelled").
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MODELLED = "modelled"


def modelled_j(power: Mapping[str, Any], busy_core_s: float, held_core_s: float) -> tuple[float, float, float]:
    """Joules at the wall of work that kept cores busy for `busy_core_s` while it held cores for `held_core_s`: low, mid, high.

    power: idle_w_per_core and busy_w_per_core, each (low, mid, high).

    1. A core's activity costs what a busy server draws beyond an idle one, per core.
    2. A core that is held is charged its share of what the idle server draws. Whether it should be is a question of
       accounting: the low end leaves it out.
    3. The ends take the quantiles of published servers that lie furthest apart. Counts: memory, fans and conversion of a
       server as published. Ignores: accelerators, cooling of the building, and what neighbours on the processor do.
    """
    idle, busy = power["idle_w_per_core"], power["busy_w_per_core"]
    low = max(busy[0] - idle[2], 0.0) * busy_core_s
    mid = (busy[1] - idle[1]) * busy_core_s + idle[1] * held_core_s
    high = (busy[2] - idle[0]) * busy_core_s + idle[2] * held_core_s
    return low, mid, high
