"""Failures: how often, how many spares, what is lost."""

from capacity import ops
from capacity.formula import formula


@formula(unit="1/s", symbol="\\lambda_c")
def component_failures_per_s(failures: float, observed: float, observed_s: float, units: float) -> float:
    """How often one kind of component stops a job with `units` of it, from what was counted elsewhere.

    1. `failures` in observed_s on `observed` units is a rate a unit; failures are independent, so rates add.
    """
    return failures / (observed * observed_s) * units


@formula(unit="s", symbol="MTBF_job")
def job_failure_interval_s(failures_per_s: float) -> float:
    """Mean time between interruptions of a job that any component stops."""
    return 1.0 / failures_per_s


@formula(unit="s", symbol="t_back")
def recovery_time_s(
    detection_s: float, replacing_s: float, checkpoint_bytes: float, read_bytes_per_s: float, unsaved_s: float = 0.0
) -> float:
    """From an interruption to the first new step, beside the steps that are done again.

    1. It is noticed, a spare (or repaired) node takes the place, the last checkpoint is read.
    2. A snapshot that was still being written is lost: on average a further unsaved_s of steps.
    """
    return detection_s + replacing_s + checkpoint_bytes / read_bytes_per_s + unsaved_s


@formula(unit="1", symbol="n_out")
def nodes_in_repair(failures_per_s: float, share_of_hardware: float, repair_s: float) -> float:
    """Nodes away at any time (Little's law); only hardware takes a node away."""
    return failures_per_s * share_of_hardware * repair_s


@formula(unit="1", symbol="n_spare", cite="cornish1938")
def spares_needed(mean: float, deviations: float = 2.326) -> float:
    """Spare nodes that are enough for most of the time (2.326 deviations: 99 %), where `mean` are away on average.

    1. Nodes away are Poisson: so many deviations, which are sqrt(mean), above the mean.
    2. It is skewed, which lifts its upper quantiles by (deviations^2 - 1) / 6; whole counts start a half lower.
    """
    quantile = mean + deviations * mean**0.5 + (deviations * deviations - 1.0) / 6.0
    return ops.maximum(ops.ceil(quantile - 0.5), 0.0)


@formula(unit="fraction", symbol="u_down")
def down_share(failure_interval_s: float, repair_s: float) -> float:
    """Share of the time a replica is away."""
    return repair_s / (failure_interval_s + repair_s)


@formula(unit="fraction", symbol="A_{n+1}")
def held_share(replicas: float, down_share: float) -> float:
    """Share of the time that at least `replicas` of one more are up: none or one of them is away."""
    all_up: float = (1.0 - down_share) ** (replicas + 1.0)
    one_away: float = (replicas + 1.0) * down_share * (1.0 - down_share) ** replicas
    return all_up + one_away


@formula(unit="s", symbol="t_drain")
def rolling_update_s(replicas: float, request_s: float, cold_start_s: float) -> float:
    """Time to renew every replica one after the other, the spare carrying its load: requests end, then a cold start."""
    return replicas * (request_s + cold_start_s)
