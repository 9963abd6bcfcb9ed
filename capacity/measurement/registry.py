"""All kernels and workloads by name, and the cases a profile runs."""

from __future__ import annotations

from fnmatch import fnmatchcase

from capacity.errors import UnknownNameError
from capacity.measurement.case import Case
from capacity.measurement.kernels import ALL as KERNEL_FAMILIES
from capacity.measurement.workloads import ALL as WORKLOAD_FAMILIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from capacity.measurement.case import Kernel, Machine

KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in (*KERNEL_FAMILIES, *WORKLOAD_FAMILIES)}


def cases(profile: str, machine: Machine, patterns: Iterable[str] = ()) -> list[Case]:
    """The cases of a profile; patterns (`gemm`, `gemm/*bf16*`) choose kernels or cases by name.

    Raises UnknownNameError for a pattern that fits nothing.
    """
    everything = [
        Case(kernel.name, parameters) for kernel in KERNELS.values() for parameters in kernel.cases(profile, machine)
    ]
    chosen: dict[str, Case] = {}
    wanted = list(patterns)
    if not wanted:
        return list({case.name: case for case in everything}.values())
    for pattern in wanted:
        fitting = [case for case in everything if _fits(case, pattern)]
        if not fitting:
            raise UnknownNameError("kernel", pattern, KERNELS, "`capacity bench --list` shows all")
        chosen |= {case.name: case for case in fitting}
    return list(chosen.values())


def _fits(case: Case, pattern: str) -> bool:
    kind = KERNELS[case.kernel].kind
    return pattern in (case.kernel, case.name, kind) or fnmatchcase(case.name, pattern)
