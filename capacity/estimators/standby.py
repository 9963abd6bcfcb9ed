"""A service when something is away: a failed replica, one that is renewed, and what protection adds to its traffic."""

from __future__ import annotations

from capacity.estimators.intervals import Value
from capacity.formula import sourced
from capacity.formulas import reliability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.case import Case

# Interruptions of a job on 16,384 devices in 54 days, by any cause (Llama 3 report, table 5), and until a replica is back.
DEVICE_FAILURES_PER_S = 419.0 / (16384.0 * 54.0 * 86400.0)
REPAIR_S = 86400.0


def standby_values(case: Case, replicas: float, each: float, request_s: float, cold_start_s: float) -> dict[str, Value]:
    """How often a replica fails, for how much of the time enough are up with one spare, how long renewing all takes.

    each: devices of a replica; request_s: of its longest usual request, which a drained replica still ends.
    """
    rate = sourced(
        DEVICE_FAILURES_PER_S * each, "failures of a replica's devices", "Llama 3 report, table 5", "default"
    )
    interval = reliability.job_failure_interval_s(rate)
    repair = case.assumptions.take(
        "repair of a replica",
        case.number("repair_time", "s", 1.0, 1e8),
        REPAIR_S,
        "s",
        "a day; a failed device stops it",
    )
    away = reliability.down_share(interval, repair)
    return {
        "replica_failure_interval": Value(interval, "s", "between failures of one replica's devices"),
        "held_share": Value(reliability.held_share(replicas, away), "fraction", "of the time enough are up, one spare"),
        "drain_time": Value(request_s, "s", "until a replica has ended what it runs"),
        "rolling_update": Value(
            reliability.rolling_update_s(replicas + 1.0, request_s, cold_start_s), "s", "to renew all, one at a time"
        ),
    }
