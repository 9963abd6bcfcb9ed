"""A row of a table of inference runs as a question of `capacity estimate`, and what it measured."""

from __future__ import annotations

import re

from capacity.estimators.checkpoint import has_experts, is_gguf
from capacity.estimators.formats import FORMATS
from capacity.estimators.layout import divides_heads, expert_count
from capacity.estimators.lowering import Tokens, lower, parameter_count
from capacity.estimators.pricing import processor
from capacity.validation.naming import device_named, model_of_shape
from capacity.validation.tables import number, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.spec.device import Device
    from capacity.spec.model import ModelSpec

SHAPE = ("n_layers", "hidden", "ffn_hidden", "n_heads", "n_kv_heads", "vocab")
# What a row's metric is scored as. Speeds are scored as speeds, whatever the row calls them.
SCORED = {
    "decode_tps": "decode_tps",
    "itl_ms": "decode_tps",
    "total_tps": "total_tps",
    "requests_per_s": "requests_per_s",
    "prefill_tps": "prefill_tps",
    "ttft_ms": "prefill_tps",
    "latency_ms": "latency_ms",
    "peak_memory_gb": "peak_memory_bytes",
}
# Deviation of the lengths of free answers over their mean.
ANSWERS_VARY = 0.8
# Requests in flight where a row says that it saturates the device.
SATURATING = 2048.0
# Prompts where a row names none, by what is measured.
USUAL_PROMPT = {"decode_tps": 16.0, "prefill_tps": 512.0}
USUAL_OUTPUT = 128.0
# Mean tokens of prompts and answers: ShareGPT as vLLM's paper counts it (Kwon et al. 2023, figure 11), articles and summaries of
# CNN/DailyMail (See et al. 2017, in tokens).
DATA_SETS = {"sharegpt": (161.0, 338.0), "cnn-dm": (900.0, 70.0)}
# Share of a device's memory that weights take at most where a run is laid out for throughput.
ROOMY = 0.7


def measured_of(row: dict[str, Any]) -> float | None:
    """What a row measured, in the unit it is scored in; None where it states nothing."""
    value, metric = number(row, "value"), word(row, "metric").lower()
    if value is None or value <= 0.0:
        return None
    if metric == "itl_ms":
        return _requests(row) / (value * 1e-3)
    if metric == "ttft_ms":
        return (number(row, "prompt_len") or USUAL_PROMPT["prefill_tps"]) / (value * 1e-3)
    return value * 1e9 if metric == "peak_memory_gb" else value


def load_of(row: dict[str, Any]) -> str:
    """Whether one request was alone ("single") or there were more ("batched")."""
    return "single" if _requests(row) == 1.0 else "batched"


def _requests(row: dict[str, Any]) -> float:
    value = number(row, "batch_or_concurrency")
    if value is not None:
        return max(value, 1.0)
    named = str(row.get("batch_or_concurrency", "")).strip() not in ("", "nan")
    return SATURATING if named or _SERVED.search(word(row, "notes").lower()) else 1.0


# What says that a speed is a server's where a row names no batch.
_SERVED = re.compile(r"\bserving\b|\binput throughput\b")


def kind_of(device: Device) -> str:
    """GPU, Apple, CPU, TPU or ASIC: what computes on it."""
    return {"edge": "GPU"}.get(processor(device), processor(device))


def engine_of(row: dict[str, Any], device: Device) -> str:
    """The profile that stands for a row's engine."""
    text = word(row, "engine").lower()
    version = re.search(r"(\d+)\.(\d+)", text)
    number_of = (int(version[1]), int(version[2])) if version else None
    if kind_of(device) == "CPU":
        if any(name in text for name in ("ipex", "torchao", "transformers", "pytorch")):
            return "transformers"
        if "ik_llama" in text or "t-mac" in text:
            return "ik-llama.cpp"
        return "executorch" if any(name in text for name in ("executorch", "xnnpack")) else "llama.cpp"
    if ("llama" in text and device.vendor in ("AMD", "Intel")) and _SMALL_HOST.search(word(row, "device").lower()):
        # Without NVIDIA's own driver a card in a small host runs through Vulkan.
        return "llama.cpp-vulkan"
    if "tensorrt" in text or "trt" in text:
        return "tensorrt-llm"
    if "sglang" in text:
        return "sglang"
    if "vllm" in text:
        return "vllm" if number_of and number_of >= (0, 8) and "tt-" not in text else "vllm-0.6"
    for part, name in _ENGINES:
        if part in text:
            return name
    return "mlx" if device.kind == "Apple" and "mlx" in text else "vllm"


_SMALL_HOST = re.compile(r"\bpi\b|\bcm\d|vulkan|hifive|radxa|thelio")
_ENGINES = (
    # What TinyChat is compared with under this name reads weights at 86 % of the bandwidth: no host is in its way.
    ("huggingface fp16", "mlc-llm"),
    ("exllama", "exllamav2"),
    ("ktransformers", "llama.cpp"),
    ("ik_llama", "ik-llama.cpp"),
    ("llama.cpp", "llama.cpp"),
    ("ollama", "llama.cpp"),
    ("mlx", "mlx"),
    ("mlc", "mlc-llm"),
    ("lmdeploy pytorch", "vllm-0.6"),
    ("lmdeploy", "lmdeploy"),
    ("turbomind", "lmdeploy"),
    ("tinychat", "mlc-llm"),
    ("llm-awq", "mlc-llm"),
    ("awq gemv", "autoawq-gemv"),
    ("awq", "autoawq"),
    ("qserve", "lmdeploy"),
    ("gpt-fast", "pytorch"),
    ("torchao", "pytorch"),
    ("compile", "pytorch"),
    ("huggingface", "transformers"),
    ("hf ", "transformers"),
    ("transformers", "transformers"),
    ("executorch", "executorch"),
    ("t-mac", "executorch"),
    ("pytorch", "transformers"),
    ("deepspeed", "vllm-0.6"),
)


def request_of(row: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The question of `capacity estimate` that a row answers, and what had to be assumed to ask it."""
    assumed: list[str] = []
    kept = host_of(row)
    device = device_of(row, kept)
    model = model_of_shape(str(row["model"]), {name: number(row, name) for name in SHAPE})
    engine = engine_of(row, device)
    precision, bits = precision_of(row, model, device, engine)
    metric = SCORED.get(word(row, "metric").lower(), "decode_tps")
    usual, written = usual_lengths(row, metric)
    prompt, output = number(row, "prompt_len"), number(row, "output_len")
    if prompt is None:
        prompt = usual
        assumed.append(f"prompts of {prompt:g}")
    if output is None:
        output = written
        assumed.append(f"answers of {output:g}")
    request: dict[str, Any] = {
        "model": model,
        "device": device.id,
        "mode": "serve",
        "engine": engine,
        "precision": precision,
        "weight_bits": bits,
        "kv_precision": cache_of(row),
        "prompt_len": max(round(prompt), 1),
        "output_len": max(round(output), 2),
        "burst": 0.0,
        "sampling": "sampled" if _answers_freely(row) else "greedy",
        "output_variation": ANSWERS_VARY if _answers_freely(row) else None,
        **kept,
        **layout_of(row, engine, model, device, bits or FORMATS.get(precision, (4.5, ""))[0]),
    }
    request["concurrency"] = max(round(_requests(row) / request["dp"]), 1)
    return {name: value for name, value in request.items() if value is not None}, assumed


def device_of(row: dict[str, Any], kept: dict[str, Any]) -> Device:
    """The device that computes; kept: what the host does, less the card beside it."""
    device = device_named(kept.pop("beside", str(row["device"])))
    if "no nvlink" in word(row, "notes").lower() and "-sxm" in device.id:
        return device_named(device.id.replace("-sxm", "-pcie"))
    return device


_BESIDE = re.compile(r"\+\s*(.+?)\s*\(cpu offload\)", re.IGNORECASE)
# Memory of a socket with eight channels of DDR5-4800, which hosts of such runs have; a cloud host's beside a T4.
_SOCKET_BYTES_PER_S, _CLOUD_BYTES_PER_S = 3.07e11, 1e11


def host_of(row: dict[str, Any]) -> dict[str, Any]:
    """What a row's host keeps of the model, as options; "beside": the card that computes, where the row names both."""
    notes, engine = word(row, "notes").lower(), word(row, "engine").lower()
    beside = _BESIDE.search(word(row, "device"))
    if beside:
        sockets = 1.0 if "single socket" in notes else 2.0
        return {
            "beside": re.sub(r"(\d)D$", r"\1 D", beside[1]),
            "offload": "experts",
            "host_bandwidth": sockets * _SOCKET_BYTES_PER_S,
        }
    if "gpu/cpu" in notes and engine.startswith(("llama", "ollama")):
        # What the card does not hold is left to the cores beside it.
        return {"offload": "weights"}
    if "flexgen" in engine and "all on gpu" not in notes:
        place = {"offload_to": "nvme"} if "to disk" in notes else {}
        return {"offload": "weights,cache", "host_bandwidth": _CLOUD_BYTES_PER_S, **place}
    return {}


def usual_lengths(row: dict[str, Any], metric: str) -> tuple[float, float]:
    """Prompt and answer where a row names neither: the means of the data set its notes name, else what its kind measures."""
    notes = word(row, "notes").lower()
    for name, (prompt, output) in DATA_SETS.items():
        if name in notes:
            beams = re.search(r"beam (\d+)", notes)
            # Each beam is a sequence of its own that decodes.
            return prompt, output * (float(beams[1]) if beams else 1.0)
    return USUAL_PROMPT.get(metric, 16.0), USUAL_OUTPUT


def _answers_freely(row: dict[str, Any]) -> bool:
    """Whether a row's answers are as long as the model makes them, not of a set length."""
    return "energy" in word(row, "source").lower()


def layout_of(row: dict[str, Any], engine: str, model: ModelSpec, device: Device, bits: float) -> dict[str, Any]:
    """How many devices, and how the model is cut over them.

    What saturates its devices and names no width is laid out for throughput: the fewest devices that hold it with room.
    """
    text = re.search(r"\d+", str(row.get("n_devices", "")))
    devices = max(float(text[0]) if text else 1.0, 1.0)
    sockets = "2s" in word(row, "n_devices").lower() or word(row, "n_devices").lower().endswith("s")
    if sockets:
        devices = 1.0
    tp = number(row, "tp") or 0.0
    if "llama.cpp" in engine:
        return {"devices": devices, "tp": 1.0, "pp": devices, "dp": 1.0}
    if tp < 1.0:
        tp = devices
        held = parameter_count(lower(model, Tokens())) * bits / 8.0
        while _requests(row) == SATURATING and tp > 1.0 and held < ROOMY * device.memory_bytes * tp / 2.0:
            tp /= 2.0
    while tp > 1.0 and not divides_heads(model, tp):
        tp /= 2.0
    tp = max(tp // 1.0, 1.0)
    if devices <= tp:
        return {"devices": tp, "tp": tp, "pp": 1.0, "dp": 1.0}
    if has_experts(model) and expert_count(model) % devices == 0.0 and divides_heads(model, devices):
        # A row that says 1 means how experts are cut: attention is cut over the devices the experts are dealt over.
        return {"devices": devices, "tp": devices, "pp": 1.0, "dp": 1.0, "ep": devices}
    replicas = max(devices // tp, 1.0)
    return {"devices": tp * replicas, "tp": tp, "pp": 1.0, "dp": replicas}


def cache_of(row: dict[str, Any]) -> str | None:
    """The format of keys and values, where the row names one."""
    text = word(row, "kv_dtype").lower()
    for part, name in (("int4", "int4"), ("int8", "int8"), ("fp8", "fp8"), ("16", "bf16"), ("3bit", "int4")):
        if part in text:
            return name
    return None


def precision_of(row: dict[str, Any], model: ModelSpec, device: Device, engine: str) -> tuple[str, float | None]:
    """The weight format's name, and its bits where the row states others."""
    text, bits = word(row, "weight_dtype").lower(), number(row, "weight_bits_effective")
    wide = "fp16" if "bf16" not in device.peak_dense_flop_per_s else "bf16"
    first = text.split(" ")[0]
    if first in FORMATS and first not in ("bf16", "fp16", "int4", "int8"):
        return first, bits
    if "nvfp4" in text or text == "fp4":
        return "nvfp4", bits
    if "mxfp4" in text:
        return "mxfp4", bits
    if (bits is not None and bits >= 15.5) or text in ("f16", "bf16", "fp16", "bfloat16", "float16"):
        return wide, None
    if "fp8" in text or "float8" in text:
        alone = "wo" in text or "weight" in text
        return ("fp8wo" if alone else "fp8"), bits
    if "llama.cpp" in engine:
        return _gguf(text), bits
    if "int8" in text or "w8" in text or (bits is not None and bits > 7.0):
        active = word(row, "activation_dtype").lower()
        both = "int8" in active or "dq" in text or "w8a8" in text
        return ("int8" if both else "int8wo"), bits
    if bits is None and not text:
        return model.weight_format or wide, None
    return "int4", bits


def _gguf(text: str) -> str:
    """The nearest of llama.cpp's formats that the estimate knows, by its name."""
    found = text.strip().replace("-", "_")
    while found:
        near = [name for name in FORMATS if is_gguf(name) and name.startswith(found)]
        if near:
            return near[0]
        found = found.rpartition("_")[0]
    return "iq2_xxs" if text.startswith("iq") else "q4_0"
