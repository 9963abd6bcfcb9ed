"""One visit: warm up, choose loops, then time the case and the control kernel in random turns until it is precise."""

from __future__ import annotations

from time import perf_counter

from capacity.measurement import statistics
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from capacity.measurement.case import Work
    from capacity.measurement.clock import Clock
    from capacity.spec.measurement import Sample


class Effort(Record):
    """When a visit is long enough.

    budget_s: for all samples of the visit, warm-ups apart. precision: it ends early when the 95 % interval of the median is
    this narrow, relative to it. sample_s: the least one sample lasts; kernels shorter than it are looped.
    """

    budget_s: float = 0.4
    precision: float = 0.01
    sample_s: float = 0.001
    fewest: int = 5
    most: int = 400
    warm_up_s: float = 0.05
    fewest_warm_ups: int = 2


def warm_up(work: Work, clock: Clock, effort: Effort) -> list[Sample]:
    """Runs until the last is no faster than those before, or time is up; all are kept."""
    runs: list[Sample] = []
    began = perf_counter()
    while True:
        runs.append(_once(work, clock, 1))
        spent = perf_counter() - began
        if len(runs) >= effort.fewest_warm_ups and (spent > effort.warm_up_s or len(runs) >= effort.most):
            return runs


def loops_for(warm_ups: list[Sample], sample_s: float) -> int:
    """How many runs make a sample long enough for the clock."""
    fastest = min(sample.wall_s / sample.loops for sample in warm_ups)
    return max(1, round(sample_s / max(fastest, 1e-9)))


def visit(
    work: Work, control: Callable[[], object] | None, clock: Clock, effort: Effort, random: Random
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Warm-ups and samples; the control kernel is timed as often as the case, before or after it by chance."""
    warm_ups = warm_up(work, clock, effort)
    loops = 1 if work.phases else loops_for(warm_ups, effort.sample_s)
    control_loops = 1
    if control is not None:
        tries = [clock.sample(control, 1, control=True) for _ in range(3)]
        control_loops = loops_for(tries, effort.sample_s)
        warm_ups += tries
    samples: list[Sample] = []
    began = perf_counter()
    while not _enough(samples, perf_counter() - began, effort):
        turns = [False] if control is None else [False, True]
        random.shuffle(turns)
        for turn in turns:
            if turn and control is not None:
                samples.append(clock.sample(control, control_loops, control=True))
            else:
                samples.append(_once(work, clock, loops))
    return tuple(warm_ups), tuple(samples)


def _once(work: Work, clock: Clock, loops: int) -> Sample:
    if work.phases:
        return clock.phased_sample(work.phases)
    assert work.run is not None
    return clock.sample(work.run, loops)


def _enough(samples: list[Sample], spent_s: float, effort: Effort) -> bool:
    own = statistics.timed(samples)
    if len(own) < effort.fewest:
        # A case that takes longer than its budget still gets two readings.
        return spent_s > effort.budget_s * 2.0 and len(own) >= 2
    if spent_s >= effort.budget_s or len(own) >= effort.most:
        return True
    chosen, corrected = statistics.undisturbed(own)
    if corrected or len(chosen) < 3 * effort.fewest:
        return False
    ordered = sorted(statistics.seconds(sample) for sample in chosen)
    low, high = statistics.median_interval(ordered)
    return high - low <= effort.precision * ordered[len(ordered) // 2]
