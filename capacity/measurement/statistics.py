"""What samples say: medians with distribution-free intervals, over the samples in which the kernel had its core."""

from __future__ import annotations

from math import ceil, floor, sqrt
from statistics import median

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capacity.spec.measurement import Measurement, Sample

# A sample that waited for a core for more than this share of its time is disturbed.
MOST_WAITED = 0.02
FEWEST_CLEAN = 3
PAGE_BYTES = 4096.0


class Summary(Record):
    """Seconds of one run of a case: median of its clean samples with the 95 % interval of that median.

    best_s: 5th percentile, what the machine does undisturbed; the
    median where waiting was subtracted. spread: interquartile range over median. disturbed: share
    of samples that waited for a core. drift: how far medians of visits lie apart, as a ratio. slowdown: control
    kernel beside this case over the best control of all. corrected: too few samples were clean, so the least
    disturbed count, waiting subtracted. fresh_bytes: pages first touched in one run. parts_s: medians of phases.
    """

    seconds: float
    low_s: float
    high_s: float
    best_s: float
    samples: int
    spread: float
    disturbed: float
    drift: float
    slowdown: float
    corrected: bool
    fresh_bytes: float
    parts_s: dict[str, float]


def clean(sample: Sample) -> bool:
    """Whether the kernel had its core throughout."""
    return sample.waited_s is None or sample.waited_s <= MOST_WAITED * sample.wall_s


def seconds(sample: Sample) -> float:
    """Seconds of one run, waiting subtracted."""
    waited = min(sample.waited_s or 0.0, 0.9 * sample.wall_s)
    return (sample.wall_s - waited) / sample.loops


def timed(samples: Iterable[Sample], *, control: bool = False) -> list[Sample]:
    """The samples of the case, or of the control kernel beside it."""
    return [sample for sample in samples if sample.control is control]


def undisturbed(samples: Sequence[Sample]) -> tuple[list[Sample], bool]:
    """The samples to believe, and whether they have to be corrected because too few were clean.

    Then those that waited least are kept: what the scheduler counts as waiting is itself off by some per cent of it.
    """
    chosen = [sample for sample in samples if clean(sample)]
    if len(chosen) >= min(FEWEST_CLEAN, len(samples)):
        return chosen, False
    ordered = sorted(samples, key=lambda sample: (sample.waited_s or 0.0) / sample.wall_s)
    return ordered[: max(len(ordered) // 3, FEWEST_CLEAN)], True


def quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics."""
    place = share * (len(ordered) - 1)
    below = floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median_interval(ordered: Sequence[float], z: float = 1.96) -> tuple[float, float]:
    """Order statistics that hold the median with 95 % (binomial, normal approximation); the range for few samples."""
    n = len(ordered)
    half = z * sqrt(n) / 2.0
    return ordered[max(floor(n / 2.0 - half), 0)], ordered[min(ceil(n / 2.0 + half), n - 1)]


def summarise(visits: Sequence[Measurement], best_control_s: float | None = None) -> Summary | None:
    """All visits to one case together; None where none succeeded."""
    samples = [sample for visit in visits for sample in timed(visit.samples)]
    if not samples:
        return None
    chosen, corrected = undisturbed(samples)
    ordered = sorted(seconds(sample) for sample in chosen)
    middle = median(ordered)
    low, high = median_interval(ordered)
    medians = [
        median(seconds(sample) for sample in undisturbed(timed(visit.samples))[0])
        for visit in visits
        if timed(visit.samples)
    ]
    controls = [control for visit in visits if (control := control_s(visit)) is not None]
    phases = {name for sample in chosen for name in sample.parts_s}
    return Summary(
        seconds=middle,
        low_s=low,
        high_s=high,
        best_s=middle if corrected else quantile(ordered, 0.05),
        samples=len(chosen),
        spread=(quantile(ordered, 0.75) - quantile(ordered, 0.25)) / middle,
        disturbed=1.0 - sum(clean(sample) for sample in samples) / len(samples),
        drift=max(medians) / min(medians),
        slowdown=median(controls) / best_control_s if controls and best_control_s else 1.0,
        corrected=corrected,
        fresh_bytes=median((sample.faults or 0) / sample.loops for sample in chosen) * PAGE_BYTES,
        parts_s={
            name: median(_part(sample, name) for sample in chosen if name in sample.parts_s) for name in sorted(phases)
        },
    )


def control_s(visit: Measurement) -> float | None:
    """Seconds of the control kernel beside a case."""
    samples = timed(visit.samples, control=True)
    return median(seconds(sample) for sample in undisturbed(samples)[0]) if samples else None


def _part(sample: Sample, name: str) -> float:
    """A phase's seconds; what the sample waited is taken from its phases by their length."""
    return sample.parts_s[name] * seconds(sample) * sample.loops / sample.wall_s
