"""The measurements of one machine and setting in a store, with the library calls each case consists of."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.measurement.case import Case, Machine
from capacity.measurement.check import by_case, summaries
from capacity.measurement.kernels.collective import HELD_KIB
from capacity.measurement.registry import KERNELS
from capacity.measurement.store import read
from capacity.spec.measurement import OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from capacity.spec.measurement import Measurement
    from capacity.spec.trace import Trace

# A multiprocessor's first-level cache: 192 to 256 KiB since Ampere, of which kernels take a part as shared memory.
GPU_L1_BYTES = 128.0 * 2**10
# What makes two runs comparable.
_SAME = ("cpu", "gpu", "torch", "device")


class Measured:
    """Cases that were timed, by name; the latest machine and setting where a store holds several.

    threads: the same machine and setting but for the number of threads.
    """

    def __init__(self, path: str, threads: int | None = None) -> None:
        environments, measurements = read(path)
        self.environment, self.visits = _latest(environments, measurements, path, threads)
        used = {visit.environment for visit in self.visits}
        self.environments = [facts for key, facts in environments.items() if key in used]
        self.settings = next((dict(visit.settings) for visit in self.visits if visit.settings), {})
        self.threads = int(self.settings.get("threads", 1))
        self.device = self.visits[0].device
        self.summaries = summaries(self.visits)
        self.inner_cache_bytes, last = _cache_sizes(self.environment, self.device, self.threads)
        self.last_cache_bytes = last
        self.machine = Machine(device=self.device, threads=self.threads, cache_bytes=last)
        self.cases = {
            name: Case(visits[0].kernel, visits[0].parameters)
            for name, visits in by_case(self.visits).items()
            if name in self.summaries
        }

    def of_kind(self, *kinds: str) -> list[str]:
        """Names of cases of some kinds."""
        return [
            name for name, case in self.cases.items() if case.kernel in KERNELS and KERNELS[case.kernel].kind in kinds
        ]

    def trace(self, name: str) -> Trace | None:
        """The calls of a case; None where shapes alone do not tell them."""
        import warnings

        from capacity.measurement.residency import Caches
        from capacity.measurement.tracing import trace_case

        sizes = {"inner_bytes": self.inner_cache_bytes, "last_bytes": self.last_cache_bytes}
        caches = Caches(**sizes) if self.device == "cpu" else Caches(**sizes, fresh_bytes=None)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return trace_case(self.cases[name], self.machine, caches)
        except Exception:  # noqa: BLE001 - torch raises many kinds for what cannot be traced
            return None


def held_out(case: Case) -> bool:
    """Whether a kernel is kept for validation: collectives of some sizes."""
    return case.kernel == "collective" and case.parameters["KiB"] in HELD_KIB


def _cache_sizes(facts: Mapping[str, Any], device: str, threads: int) -> tuple[float, float]:
    """Private and last-level caches, in bytes: second levels of the cores in use and the third; of a GPU, first levels and the second."""
    if device == "cuda":
        return float(facts.get("gpu_multiprocessors") or 80) * GPU_L1_BYTES, float(
            facts.get("gpu_l2_bytes") or 32 * 2**20
        )
    levels = facts.get("caches_bytes") or {}
    return float(levels.get("L2", 2**20)) * threads, float(max(levels.values(), default=32 * 2**20))


def threads_of(path: str) -> list[int]:
    """Numbers of threads a store holds measurements with, on its latest machine; the latest number comes last."""
    environments, measurements = read(path)
    last, _ = _latest(environments, measurements, path, None)
    same = [facts for facts in environments.values() if _setting(facts) == _setting(last)]
    return [*sorted({_threads(facts) for facts in same} - {_threads(last)}), _threads(last)]


def _threads(facts: Mapping[str, Any]) -> int:
    return int((facts.get("plan") or {}).get("threads") or facts.get("threads") or 1)


def _setting(facts: Mapping[str, Any]) -> list[Any]:
    """The machine and what was set but for threads; how long a visit sampled does not matter."""
    plan = {name: value for name, value in (facts.get("plan") or {}).items() if name not in ("budget_s", "threads")}
    return [*(facts.get(name) for name in _SAME), plan]


def _latest(
    environments: Mapping[str, Mapping[str, Any]], measurements: Sequence[Measurement], path: str, threads: int | None
) -> tuple[Mapping[str, Any], list[Measurement]]:
    """The visits of one machine and setting: of the last environment in the store."""
    good = [visit for visit in measurements if visit.status == OK and visit.environment in environments]
    if not good:
        raise InputError(f"{path}: holds no measurement that succeeded: run `capacity bench --to {path}`")
    last = environments[good[-1].environment]
    wanted = _threads(last) if threads is None else threads
    same = {
        key for key, facts in environments.items() if _setting(facts) == _setting(last) and _threads(facts) == wanted
    }
    chosen = [visit for visit in good if visit.environment in same]
    return (environments[chosen[-1].environment] if chosen else last), chosen
