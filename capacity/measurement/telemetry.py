"""Power, energy, clocks and throttling while a case runs: from NVML, RAPL and psutil, None where there is no counter.

Nothing here is a model: a number is from a counter, or is not given.
"""

from __future__ import annotations

import glob
import os
from time import perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_SOURCE = "none"
_UJ_PER_J = 1e6
_MJ_PER_J = 1e3
_MW_PER_W = 1e3
_HZ_PER_MHZ = 1e6

# Reasons NVML may give for running below the clock asked for; idling and settings by the user are no fault.
_REASONS = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "software thermal slowdown",
    "HwThermalSlowdown": "hardware thermal slowdown",
    "HwPowerBrakeSlowdown": "power brake",
    "SyncBoost": "sync boost",
    "ApplicationsClocksSetting": "application clocks",
}


class Nvml:
    """One GPU through NVML; `library` is the pynvml module, so that a test can bring its own.

    which: its number as NVML counts, or its UUID; the first that CUDA programs may see if not given.
    """

    source = "nvml"

    def __init__(self, which: int | str | None = None, library: Any = None) -> None:
        if library is None:
            import pynvml

            library = pynvml
        self._nvml = library
        library.nvmlInit()
        which = visible_gpu() if which is None else which
        by = library.nvmlDeviceGetHandleByUUID if isinstance(which, str) else library.nvmlDeviceGetHandleByIndex
        self._handle = by(which)

    def facts(self) -> dict[str, Any]:
        """Name, driver and limits; a figure the driver does not give is None."""
        limit = self._ask("nvmlDeviceGetPowerManagementLimit")
        return {
            "gpu": _decoded(self._ask("nvmlDeviceGetName")),
            "driver": _decoded(self._plain("nvmlSystemGetDriverVersion")),
            "power_limit_w": None if limit is None else limit / _MW_PER_W,
            "clock_max_hz": self._clock("nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_SM"),
            "memory_clock_max_hz": self._clock("nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_MEM"),
            "persistence": self._ask("nvmlDeviceGetPersistenceMode"),
            "ecc": self._ask("nvmlDeviceGetEccMode"),
        }

    def read(self) -> dict[str, Any]:
        """Power, clocks, temperature, memory and why it is throttled, now."""
        power = self._ask("nvmlDeviceGetPowerUsage")
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        utilisation = self._ask("nvmlDeviceGetUtilizationRates")
        return {
            "power_w": None if power is None else power / _MW_PER_W,
            "clock_hz": self._clock("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM"),
            "memory_clock_hz": self._clock("nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM"),
            "temperature_c": self._ask("nvmlDeviceGetTemperature", getattr(self._nvml, "NVML_TEMPERATURE_GPU", 0)),
            "memory_used_bytes": None if memory is None else int(memory.used),
            "utilisation": None if utilisation is None else utilisation.gpu / 100.0,
            "throttled": self._reasons(),
        }

    def energy_j(self) -> float | None:
        """The GPU's own counter since the driver was loaded; None before Volta."""
        value = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if value is None else value / _MJ_PER_J

    def _reasons(self) -> list[str] | None:
        mask = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if mask is None:
            mask = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        if mask is None:
            return None
        found = []
        for name, said in _REASONS.items():
            bit = 0
            for form in (f"nvmlClocksEventReason{name}", f"nvmlClocksThrottleReason{name}"):
                bit = bit or getattr(self._nvml, form, 0)
            if mask & bit:
                found.append(said)
        return found

    def _clock(self, function: str, kind: str) -> float | None:
        value = self._ask(function, getattr(self._nvml, kind, 1))
        return None if value is None else value * _HZ_PER_MHZ

    def _ask(self, function: str, *arguments: Any) -> Any:
        return self._plain(function, self._handle, *arguments)

    def _plain(self, function: str, *arguments: Any) -> Any:
        call = getattr(self._nvml, function, None)
        if call is None:
            return None
        try:
            return call(*arguments)
        except self._nvml.NVMLError:
            return None


def visible_gpu() -> int | str:
    """The GPU that CUDA calls 0: NVML counts all of them, whatever CUDA_VISIBLE_DEVICES hides."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return int(first) if first.isdigit() else first or 0


class Rapl:
    """Energy of the processor packages through the powercap interface of Linux, where it may be read."""

    source = "rapl"

    def __init__(self, root: str = "/sys/class/powercap") -> None:
        self._zones = []
        for zone in sorted(glob.glob(os.path.join(root, "intel-rapl:*"))):
            if os.path.basename(zone).count(":") != 1:  # a part of a package, counted with it
                continue
            if _number(os.path.join(zone, "energy_uj")) is not None:
                self._zones.append(zone)
        if not self._zones:
            raise OSError("no RAPL counter can be read")
        self._last: dict[str, float] = {}
        self._total = 0.0

    def energy_j(self) -> float | None:
        """Joules since the first call; a counter that wraps is unwrapped, if asked once a wrap."""
        for zone in self._zones:
            now = _number(os.path.join(zone, "energy_uj"))
            if now is None:
                return None
            before = self._last.get(zone, now)
            step = now - before
            if step < 0.0:
                step += _number(os.path.join(zone, "max_energy_range_uj")) or 0.0
            self._total += step
            self._last[zone] = now
        return self._total / _UJ_PER_J


def counter(device: str = "cpu", nvml: Any = None) -> Nvml | Rapl | None:
    """The energy counter of a device; None where there is none."""
    try:
        return Nvml(library=nvml) if device == "cuda" else Rapl()
    except Exception:  # noqa: BLE001 - NVML raises its own kinds; without a counter there is no number
        return None


class Watch:
    """Readings over the life of one visit, summed up without keeping each."""

    def __init__(self, nvml: Nvml | None = None) -> None:
        self._nvml = nvml
        self._gpu: list[dict[str, Any]] = []
        self._began = perf_counter()
        self._busy = _all_busy_s()

    def __call__(self, process_id: int) -> None:
        """Take one reading; the process id is the visited case's."""
        del process_id
        if self._nvml is not None:
            self._gpu.append(self._nvml.read())

    def summary(self, own_cpu_s: float = 0.0) -> dict[str, Any]:
        """Load of others on the processor, and the GPU's range of power, clock and temperature."""
        facts: dict[str, Any] = {}
        busy = _all_busy_s()
        if busy is not None and self._busy is not None:
            elapsed = max(perf_counter() - self._began, 1e-9) * (os.cpu_count() or 1)
            facts["others_share"] = round(max(busy - self._busy - own_cpu_s, 0.0) / elapsed, 4)
        for name in ("power_w", "clock_hz", "memory_clock_hz", "temperature_c", "memory_used_bytes"):
            values = [reading[name] for reading in self._gpu if reading[name] is not None]
            if values:
                facts[name] = [min(values), sum(values) / len(values), max(values)]
        reasons = sorted({reason for reading in self._gpu for reason in reading["throttled"] or ()})
        if self._gpu:
            facts["throttled"] = reasons
        return facts


def _all_busy_s() -> float | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice already
    return float(sum(times) - idle - guests)


def _decoded(text: Any) -> Any:
    return text.decode() if isinstance(text, bytes) else text


def _number(path: str) -> float | None:
    try:
        with open(path, encoding="ascii") as file:
            return float(file.read())
    except (OSError, ValueError):
        return None
