"""What a measurement depends on and a reader must know: processor, caches, clock, threads, limits, load, versions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from time import perf_counter, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# What moves a step by up to 2.5 times without a line of the program changing.
_SETTINGS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_AFFINITY", "GOMP_CPU_AFFINITY", "LD_PRELOAD",
    "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES",
    "THP_MEM_ALLOC_ENABLE", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA", "DNNL_DEFAULT_FPMATH_MODE", "CUDA_VISIBLE_DEVICES", "NCCL_ALGO", "NCCL_PROTO", "OPENBLAS_CORETYPE",
)  # fmt: skip
_PACKAGES = ("torch", "numpy", "torchao", "triton", "onnxruntime", "llama-cpp-python", "gguf", "psutil", "nvidia-ml-py")
# Fields that differ from minute to minute: left out of the key and of comparisons across days.
VOLATILE = ("load", "others_share", "measured_clock_hz", "memory_available_bytes", "seen", "clock_now_hz")


def environment(device: str = "cpu", *, threads: int = 1) -> dict[str, Any]:
    """Facts about this machine and its software, plain values only; what cannot be known is None."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "threads_per_core": _threads_per_core(),
        "caches_bytes": caches_bytes(),
        "instructions": _instructions(),
        "hypervisor": "hypervisor" in _cpuinfo("flags").split(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clock_now_hz": _kilohertz("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
        "quota_cores": quota_cores(),
        "memory_bytes": _memory("MemTotal"),
        "memory_available_bytes": _memory("MemAvailable"),
        "memory_limit_bytes": memory_limit_bytes(),
        "huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "nice": os.nice(0),
        "load": list(os.getloadavg()),
        "threads": threads,
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        "versions": _versions(_PACKAGES),
        "device": device,
    }
    facts["key"] = key_of(facts)
    return facts


def key_of(facts: dict[str, Any]) -> str:
    """A short name for an environment, the same tomorrow if nothing but the load has changed."""
    lasting = {name: value for name, value in facts.items() if name not in VOLATILE and name != "key"}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True, default=str).encode()).hexdigest()[:12]


def torch_facts(device: str) -> dict[str, Any]:
    """What torch says of its build and of the accelerator; to be called in a worker, for it imports torch."""
    import torch

    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "torch_threads": torch.get_num_threads(),
        "mkl": torch.backends.mkl.is_available(),
        "onednn": torch.backends.mkldnn.is_available(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "build": re.sub(r"\s+", " ", torch.__config__.show())[:600],
        "measured_clock_hz": measured_clock_hz(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "gpu_multiprocessors": properties.multi_processor_count,
            "gpu_capability": f"{properties.major}.{properties.minor}",
            "gpu_l2_bytes": getattr(properties, "L2_cache_size", None),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return facts


def measured_clock_hz() -> float | None:
    """The clock, from a chain of dependent additions: one a cycle. Named clocks are wrong by half on virtual machines."""
    from capacity.measurement.native import clock_probe

    return clock_probe()


def others_share(interval_s: float = 0.5) -> float | None:
    """Share of all cores that other processes used meanwhile; None where the system does not say."""
    before = _busy_s()
    began, own = perf_counter(), sum(os.times()[:2])
    sleep(interval_s)
    after = _busy_s()
    if before is None or after is None:
        return None
    elapsed = (perf_counter() - began) * (os.cpu_count() or 1)
    return max((after - before - (sum(os.times()[:2]) - own)) / elapsed, 0.0)


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name, its family and model where the name is generic."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    family, model = _cpuinfo("cpu family"), _cpuinfo("model")
    return f"{name} (family {family}, model {model})" if family else name


def cpu_id() -> tuple[str, int | None, int | None]:
    """Vendor, family and model as CPUID says them; None where it says nothing."""
    family, model = (_cpuinfo(field) for field in ("cpu family", "model"))
    return _cpuinfo("vendor_id"), int(family) if family.isdigit() else None, int(model) if model.isdigit() else None


def caches_bytes() -> dict[str, int]:
    """Sizes of the first core's data caches by level."""
    sizes: dict[str, int] = {}
    for index in range(8):
        folder = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        kind, level, size = (_text(f"{folder}/{name}") for name in ("type", "level", "size"))
        if kind in ("Data", "Unified") and level and size and size[:-1].isdigit():
            sizes[f"L{level}"] = int(size[:-1]) * {"K": 2**10, "M": 2**20}.get(size[-1], 1)
    return sizes


def last_cache_bytes() -> float:
    """The last-level cache, or 32 MiB where unknown."""
    return float(max(caches_bytes().values(), default=32 * 2**20))


def quota_cores() -> float | None:
    """Cores the control group may use; None without a quota."""
    text = _text("/sys/fs/cgroup/cpu.max")
    if text:
        most, period = text.split()
        return None if most == "max" else int(most) / int(period)
    old, span = (_text(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(old) / int(span) if old and span and int(old) > 0 else None


def memory_limit_bytes() -> int | None:
    """What the control group allows; None without a limit."""
    text = _text("/sys/fs/cgroup/memory.max") or _text("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return int(text) if text and text.isdigit() and int(text) < 2**60 else None


def available_bytes() -> float:
    """Memory a new process may take now, at least a GiB so that a suite can say what happened."""
    free = _memory("MemAvailable") or 8 * 2**30
    limit = memory_limit_bytes()
    return float(max(min(free, limit) if limit else free, 2**30))


def _busy_s() -> float | None:
    text = _text("/proc/stat")
    if not text:
        return None
    user, nice, system, _, _, interrupt, soft, steal, *_ = (float(word) for word in text.split()[1:11])
    return (user + nice + system + interrupt + soft + steal) / float(os.sysconf("SC_CLK_TCK"))


def _threads_per_core() -> int | None:
    text = _text("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    if not text:
        return None
    return sum(int(part.split("-")[-1]) - int(part.split("-", maxsplit=1)[0]) + 1 for part in text.split(",") if part)


def _instructions() -> list[str]:
    flags = set(_cpuinfo("flags").split())
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "sve")
    return [name for name in known if name in flags]


def _cpuinfo(field: str) -> str:
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _memory(field: str) -> int | None:
    for line in (_text("/proc/meminfo") or "").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def _kilohertz(path: str) -> float | None:
    text = _text(path)
    return float(text) * 1e3 if text else None


def _chosen(path: str) -> str | None:
    found = re.search(r"\[(\w+)\]", _text(path) or "")
    return found.group(1) if found else None


def _versions(packages: Iterable[str]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None
