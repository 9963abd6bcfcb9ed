"""A store of `capacity bench` as plain data: the machine, what every case took, what failed, how far to trust it."""

from __future__ import annotations

import os
from typing import Any

from capacity.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.measurement.measured import Measured
    from capacity.spec.measurement import Measurement

_FACTS = (
    "system", "python", "torch", "cpu", "gpu", "cores", "usable_cores", "instructions", "caches_bytes", "measured_clock_hz", "memory_bytes",
    "gpu_memory_bytes", "huge_pages", "hypervisor", "governor", "quota_cores", "seen",
)  # fmt: skip
_PARAMETERS = ("dtype", "form", "cache", "phase", "width")
PHASES = ("forward", "loss", "backward", "optimizer")
STORES = (".jsonl", ".jsonl.xz")


def read_store(path: str) -> dict[str, Any]:
    """All of a store that a report tells; raises FileFormatError, or InputError where nothing was timed."""
    if path.endswith(".xz"):
        return _unpacked(path)
    try:
        from capacity.measurement.check import by_case, check
        from capacity.measurement.measured import Measured
        from capacity.measurement.store import read
    except ModuleNotFoundError as error:
        raise InputError(f'a store needs {error.name}: pip install "model-capacity[bench]"') from None

    environments, measurements = read(path)
    measured = Measured(path)
    visits = by_case(measured.visits)
    findings = [one for one in check(environments, measurements) if not one.case]
    told: dict[str, Any] = _rounded({
        "kind": "bench",
        "machine": {name: measured.environment[name] for name in _FACTS if measured.environment.get(name) is not None},
        "device": measured.device,
        "threads": measured.threads,
        "settings": {name: value for name, value in measured.settings.items() if isinstance(value, (str, int, float))},
        "visits": len(measured.visits),
        "cases": [_case(name, measured, visits[name]) for name in sorted(measured.summaries)],
        "failed": [
            {"case": name, "status": ones[-1].status, "why": ones[-1].why}
            for name, ones in sorted(visits.items())
            if name not in measured.summaries
        ],
        "findings": [{"why": one.why, "remedy": one.remedy} for one in findings],
        "anchors": [_anchor(one) for name in sorted(visits) for one in visits[name] if one.kernel == "anchor" and one.status == "ok"],
        "reached": reached(measured, visits),
    })  # fmt: skip
    return told


def _rounded(what: Any) -> Any:
    """Numbers to six digits: no clock knows more."""
    if isinstance(what, dict):
        return {name: _rounded(value) for name, value in what.items() if value is not None}
    if isinstance(what, list):
        return [_rounded(value) for value in what]
    return float(f"{what:.6g}") if isinstance(what, float) else what


def _unpacked(path: str) -> dict[str, Any]:
    import lzma
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        plain = os.path.join(folder, os.path.basename(path).removesuffix(".xz"))
        try:
            with lzma.open(path) as source, open(plain, "wb") as target:
                target.write(source.read())
        except (OSError, lzma.LZMAError) as error:
            raise InputError(f"{path[-80:]} cannot be unpacked ({error})") from None
        return read_store(plain)


def _case(name: str, measured: Measured, visits: list[Measurement]) -> dict[str, Any]:
    summary, visit = measured.summaries[name], visits[-1]
    facts = visit.facts
    rest = visit.resting_memory_bytes or 0
    return {
        "case": name,
        "kernel": visit.kernel,
        **{key: visit.parameters[key] for key in _PARAMETERS if isinstance(visit.parameters.get(key), (str, int, float))},
        "seconds": summary.seconds,
        "low_s": summary.low_s,
        "high_s": summary.high_s,
        "best_s": summary.best_s,
        "samples": summary.samples,
        "disturbed": summary.disturbed,
        "flop": visit.flop,
        "moved_bytes": visit.moved_bytes,
        "memory_bytes": visit.peak_memory_bytes - rest if visit.peak_memory_bytes is not None else None,
        "energy_j": visit.energy_j,
        "energy_interval_j": list(visit.energy_interval_j) if visit.energy_interval_j else None,
        "energy_source": visit.energy_source,
        **{f"{phase}_s": summary.parts_s[phase] for phase in PHASES if phase in summary.parts_s},
        **{key: facts[key] for key in ("tokens", "weight_bytes", "cache_bytes", "disk_bytes", "relative_error") if isinstance(facts.get(key), (int, float))},
    }  # fmt: skip


def _anchor(visit: Measurement) -> dict[str, Any]:
    """The same rate by this ruler and by others, in the same minutes."""
    facts, about = visit.facts, visit.parameters
    row: dict[str, Any] = {"rate": f"{about.get('against')} {about.get('dtype')}", "visit": visit.round + 1}
    if isinstance(facts.get("peak_flop_per_s"), dict):
        row |= {f"{name} FLOP/s": rate for name, rate in facts["peak_flop_per_s"].items()}
    else:
        row |= {
            f"{name.removesuffix('_bytes_per_s')} byte/s": rate
            for name, rate in facts.items()
            if name.endswith("_bytes_per_s")
        }
    return {**row, "here / best other": facts.get("share_of_the_best")}


def reached(measured: Measured, visits: dict[str, list[Measurement]]) -> dict[str, float]:
    """The best rates: products by format in FLOP/s, memory beyond the caches in byte/s."""
    found: dict[str, float] = {}
    for name, summary in measured.summaries.items():
        visit = visits[name][-1]
        if visit.kernel == "gemm" and visit.flop:
            key = f"products in {visit.parameters['dtype']}, FLOP/s"
            found[key] = max(found.get(key, 0.0), visit.flop / summary.best_s)
        if visit.kernel == "memory" and visit.moved_bytes and visit.moved_bytes > 2.0 * measured.last_cache_bytes:
            found["memory, byte/s"] = max(found.get("memory, byte/s", 0.0), visit.moved_bytes / summary.best_s)
    return found
