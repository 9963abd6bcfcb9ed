"""Every kernel and workload of `capacity bench`, as a benchmark with what it does and what it was predicted to take."""

import os
from statistics import median

import pytest

from capacity.measurement import statistics
from capacity.measurement.case import Machine, NotSupportedError
from capacity.measurement.clock import Clock
from capacity.measurement.registry import KERNELS, cases
from capacity.measurement.worker import control_kernel

PROFILE = os.environ.get("CAPACITY_BENCH", "quick")
CASES = [
    case
    for case in cases(PROFILE, Machine())
    if not KERNELS[case.kernel].processes and KERNELS[case.kernel].kind != "anchor"
]
CONTROLS = 15


def control_s(machine):
    """What the control kernel takes now."""
    run, clock = control_kernel(machine.device), Clock(threads=machine.threads)
    run()
    samples = [clock.sample(run, control=True) for _ in range(CONTROLS)]
    return median(statistics.seconds(sample) for sample in statistics.undisturbed(samples)[0])


def predicted_s(laws, case, machine):
    """What this machine's laws say; None without laws, or where the case cannot be traced."""
    if laws is None:
        return None
    from capacity.measurement.residency import Caches
    from capacity.measurement.tracing import trace_case

    try:
        trace = trace_case(case, machine, Caches(laws.inner_cache_bytes, laws.last_cache_bytes))
    except Exception:
        return None
    seconds, missing = laws.trace_s(trace)
    return None if missing else sum(seconds.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.benchmark(warmup=True, min_rounds=5, max_time=0.4)
def test_case(benchmark, case, machine, laws):
    try:
        work = KERNELS[case.kernel].build(case.parameters, machine)
    except NotSupportedError as error:
        pytest.skip(str(error))
    phases = work.phases or (("", work.run),)

    def run():
        for _, part in phases:
            part()

    before = control_s(machine)
    benchmark(run)
    control = (before + control_s(machine)) / 2.0
    benchmark.group = case.kernel
    benchmark.extra_info.update(
        flop=work.flop,
        byte=work.moved_bytes,
        predicted_s=predicted_s(laws, case, machine),
        device=machine.device,
        threads=machine.threads,
        control_s=control,
    )
    if benchmark.stats is not None:  # --benchmark-disable
        benchmark.extra_info["ratio_to_control"] = benchmark.stats.stats.median / control
