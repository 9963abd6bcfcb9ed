"""This machine as a device of the user's own catalogue, with its kernel profile: what `--device this-machine` reads."""

from __future__ import annotations

import json
import os

from capacity.catalogue.own import THIS_MACHINE, laws_path, own_folder
from capacity.errors import InputError
from capacity.laws.local import LocalLaws, to_document
from capacity.laws.profile import FITTED
from capacity.measurement.measured import Measured
from capacity.toml_file import read_toml
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_SKINNY_ROWS = 4


def write_machine(laws: LocalLaws, path: str) -> list[str]:
    """Write laws, device and profile, each whole or not at all; returns their paths."""
    measured = Measured(path)
    facts = summary(measured, laws)
    folder = own_folder()
    files = {
        laws_path(): json.dumps(to_document(laws), indent=1) + "\n",
        os.path.join(folder, "devices", f"{THIS_MACHINE}.toml"): device_file(facts),
        os.path.join(folder, "profiles", f"{THIS_MACHINE}.toml"): profile_file(facts, laws),
    }
    for target, text in files.items():
        _write(target, text)
    return list(files)


def summary(measured: Measured, laws: LocalLaws) -> dict[str, Any]:
    """What the datasheet of this machine would say, had it one: best rates that were measured."""
    peaks: dict[str, float] = {}
    bandwidth = 0.0
    skinny: dict[str, float] = {}
    visits = {visit.case: visit for visit in measured.visits}
    for name, case in measured.cases.items():
        visit, timing = visits[name], measured.summaries[name]
        if case.kernel == "gemm" and visit.flop:
            dtype = case.parameters["dtype"]
            peaks[dtype] = max(peaks.get(dtype, 0.0), visit.flop / timing.best_s)
        if case.kernel == "memory" and visit.moved_bytes and visit.moved_bytes > 2.0 * measured.last_cache_bytes:
            bandwidth = max(bandwidth, visit.moved_bytes / timing.best_s)
        if case.kernel == "gemm-skinny" and case.parameters["m"] <= _SKINNY_ROWS and visit.moved_bytes:
            dtype = case.parameters["dtype"]
            skinny[dtype] = max(skinny.get(dtype, 0.0), visit.moved_bytes / timing.seconds)
    if not peaks or not bandwidth:
        raise InputError("the store holds no gemm or no memory kernels: run `capacity bench gemm memory`")
    environment = measured.environment
    cuda = measured.device == "cuda"
    return {
        "name": str(environment.get("gpu") if cuda else environment.get("cpu")),
        "kind": "GPU" if cuda else "CPU",
        "seen": str(environment.get("seen", ""))[:10],
        "peaks": peaks,
        "bandwidth": bandwidth,
        "skinny": skinny,
        "memory": environment.get("gpu_memory_bytes") if cuda else environment.get("memory_bytes"),
        "cache": environment.get("gpu_l2_bytes") if cuda else measured.last_cache_bytes,
        "processors": environment.get("gpu_multiprocessors") if cuda else laws.threads,
        "clock": None if cuda else environment.get("measured_clock_hz"),
    }


def device_file(facts: Mapping[str, Any]) -> str:
    """The device in the catalogue's form; the best measured rate stands where a datasheet gives a peak."""
    lines = [
        f'id = "{THIS_MACHINE}"',
        f"name = {_text(facts['name'])}",
        'vendor = "this machine"',
        f'kind = "{facts["kind"]}"',
        'segment = "workstation"',
        f'architecture = "{THIS_MACHINE}"',
        "",
        f'year = {{ value = {facts["seen"][:4] or 2026}, unit = "year", source = "bench" }}',
        *(
            f'{key} = {{ value = {value:.6g}, unit = "{unit}", source = "bench" }}'
            for key, value, unit in (
                ("memory", facts["memory"], "byte"),
                ("memory_bandwidth", facts["bandwidth"], "byte/s"),
                ("cache", facts["cache"], "byte"),
                ("multiprocessors", facts["processors"], "1"),
                ("clock", facts["clock"], "Hz"),
            )
            if value
        ),
        "",
        "[peak]",
        *(
            f'{dtype} = {{ value = {rate:.6g}, unit = "FLOP/s", source = "bench" }}'
            for dtype, rate in sorted(facts["peaks"].items())
        ),
        "",
        "[sources.bench]",
        'title = "capacity bench on this machine: best rates that were measured, not a datasheet"',
        f'date = "{facts["seen"]}"',
        "checked = true",
    ]
    return "\n".join(lines) + "\n"


def profile_file(facts: Mapping[str, Any], laws: LocalLaws) -> str:
    """The kernel profile: shares of the rates above. What the suite does not show stays as for any machine of the kind."""
    base = read_toml(os.path.join(FITTED, "gpu.toml" if facts["kind"] == "GPU" else "cpu.toml"))
    shares = {}
    for dtype, peak in facts["peaks"].items():
        law = laws.seconds.get(f"product {dtype}", {})
        work, calls = law.get("m n k", 0.0), law.get("calls", 0.0)
        shares[dtype] = (
            min(2.0 / work / peak, 1.0) if work else 0.8,
            min(facts["skinny"].get(dtype, 0.7 * facts["bandwidth"]) / facts["bandwidth"], 1.0),
            max(calls * 1e6, 0.1),
        )
    wide = "bf16" if "bf16" in shares else "fp32"
    attention = laws.seconds.get(f"attention {wide}", {})
    rate = attention.get("flop", 0.0) + attention.get("scores", 0.0) / 4.0 / 64.0
    values = dict(base["laws"])
    if rate:
        values["prefill_share_of_peak"] = min(1.0 / rate / facts["peaks"][wide], 1.0)
        values["attention_launch_s"] = max(attention.get("calls", 0.0), 1e-7)
        values["queries_half"] = 0.0
    launches = laws.seconds.get(f"any pointwise {wide}", {}).get("calls")
    if launches:
        values["elementwise_launch_s"] = launches
    values["sustained_share"] = 1.0
    fallback = shares.get("fp32") or next(iter(shares.values()))
    lines = [
        f"name = {_text(facts['name'])}",
        'basis = "measured"',
        'source = "capacity calibrate local"',
        f'date = "{facts["seen"]}"',
    ]
    for dtype, row in [*sorted(shares.items()), ("other", fallback)]:
        lines += ["", f"[gemm.{dtype}]"]
        lines += [
            f"{key} = {value:.6g}"
            for key, value in zip(("share_of_peak", "share_of_bandwidth", "launch_us"), row, strict=True)
        ]
    lines += ["", "[laws]", *(f"{key} = {float(value):.6g}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """A TOML string; JSON's escapes are TOML's."""
    return json.dumps(value, ensure_ascii=True)


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); set CAPACITY_HOME to a folder"
        ) from None
