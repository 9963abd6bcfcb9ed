"""Why a result is unstable, and what to do about it."""

from __future__ import annotations

from capacity.measurement import statistics
from capacity.record import Record
from capacity.spec.measurement import OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from capacity.measurement.statistics import Summary
    from capacity.spec.measurement import Measurement

MOST_SPREAD = 0.10
MOST_DRIFT = 1.10
MOST_SLOWDOWN = 1.15
MOST_DISTURBED = 0.25
MOST_OTHERS = 0.05
MOST_OVERHEAD = 0.01
FEWEST_SAMPLES = 5


class Finding(Record):
    """One reason to distrust a case, or the whole run (case ""), and the remedy."""

    case: str
    why: str
    remedy: str


def by_case(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Visits by case, in order of first appearance."""
    found: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        found.setdefault(measurement.case, []).append(measurement)
    return found


def best_control_s(measurements: Sequence[Measurement]) -> float | None:
    """What the control kernel takes when nothing disturbs it: the 10th percentile over visits."""
    seen = sorted(value for visit in measurements if (value := statistics.control_s(visit)) is not None)
    return statistics.quantile(seen, 0.1) if seen else None


def summaries(measurements: Sequence[Measurement]) -> dict[str, Summary]:
    """A summary for each case that could be timed."""
    control = best_control_s(measurements)
    found = {}
    for name, visits in by_case(measurements).items():
        summary = statistics.summarise([visit for visit in visits if visit.status == OK], control)
        if summary is not None:
            found[name] = summary
    return found


def check(environments: Mapping[str, Mapping[str, Any]], measurements: Sequence[Measurement]) -> list[Finding]:
    """All findings, those about the whole run first."""
    findings = [finding for facts in environments.values() for finding in _of_environment(facts)]
    shares = sorted(share for visit in measurements if (share := visit.telemetry.get("others_share")) is not None)
    if shares and statistics.quantile(shares, 0.5) > MOST_OTHERS:
        findings.append(
            Finding(
                "",
                f"other processes used {statistics.quantile(shares, 0.5):.0%} of all cores in the median visit "
                f"(up to {shares[-1]:.0%})",
                "stop them, or measure with --threads 1, where one busy neighbour costs least",
            )
        )
    known = summaries(measurements)
    for name, visits in by_case(measurements).items():
        findings += _of_case(name, visits, known.get(name))
    return findings


def _of_environment(facts: Mapping[str, Any]) -> list[Finding]:
    found = []
    governor = facts.get("governor")
    if governor and governor not in ("performance", "schedutil"):
        found.append(Finding("", f"the clock's governor is {governor}", "set it to performance"))
    quota, threads = facts.get("quota_cores"), facts.get("threads") or 1
    if quota is not None and quota < threads:
        found.append(
            Finding(
                "",
                f"the control group allows {quota:g} cores to {threads} threads",
                f"use --threads {max(int(quota), 1)}",
            )
        )
    load = facts.get("load") or [0.0]
    cores = facts.get("usable_cores") or facts.get("cores") or 1
    if load[0] > 0.5 * cores:
        found.append(
            Finding("", f"the load was {load[0]:.1f} on {cores} cores when it began", "wait until the machine is idle")
        )
    return found


def _of_case(name: str, visits: Sequence[Measurement], summary: Summary | None) -> list[Finding]:
    found = [
        Finding(name, f"{visit.status}: {visit.why}", _remedy(visit.status)) for visit in visits if visit.status != OK
    ]
    if summary is None:
        return found
    if summary.corrected or summary.disturbed > MOST_DISTURBED:
        how = "too few were clean, waiting was subtracted" if summary.corrected else "those were left out"
        found.append(
            Finding(
                name,
                f"{summary.disturbed:.0%} of its samples waited for a core; {how}",
                "measure again on an idle machine, or with fewer threads",
            )
        )
    if summary.drift > MOST_DRIFT:
        found.append(
            Finding(
                name,
                f"its visits differ by {summary.drift - 1.0:.0%}",
                "something changed between them (clock, neighbours on the memory): add --rounds",
            )
        )
    if summary.spread > MOST_SPREAD:
        found.append(
            Finding(
                name,
                f"half of its samples spread over {summary.spread:.0%} of the median",
                "give it more time with --budget; if it stays, the case itself is unsteady",
            )
        )
    if summary.slowdown > MOST_SLOWDOWN:
        found.append(
            Finding(
                name,
                f"the control kernel beside it was {summary.slowdown - 1.0:.0%} slower than at its best",
                "the machine was slower then: compare its ratio to the control, or measure again",
            )
        )
    if summary.samples < FEWEST_SAMPLES:
        found.append(Finding(name, f"only {summary.samples} samples count", "give it more time with --budget"))
    overheads = [visit.overhead_s for visit in visits if visit.overhead_s is not None]
    lengths = [sample.wall_s for visit in visits for sample in statistics.timed(visit.samples)]
    if overheads and lengths and max(overheads) > MOST_OVERHEAD * min(lengths):
        found.append(
            Finding(
                name,
                f"reading the clock takes {max(overheads) / min(lengths):.1%} of its shortest sample",
                "its samples need more loops",
            )
        )
    throttled = sorted({reason for visit in visits for reason in visit.telemetry.get("throttled") or ()})
    if throttled:
        found.append(
            Finding(name, f"the GPU was held back: {', '.join(throttled)}", "cool it, or raise its power limit")
        )
    return found


def _remedy(status: str) -> str:
    return {
        "out of memory": "expected where it does not fit; else free memory or raise --memory",
        "timed out": "raise its time, or leave it out",
        "crashed": "a fault of the library: report it there with this case's name",
        "unsupported": "nothing to do: this device or build lacks it",
    }.get(status, "see the message")
