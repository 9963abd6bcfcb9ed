"""Number formats by the names they are known by: bits a weight, and the format its products run in."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.estimators.assumptions import one_of
from capacity.spec.workload import Precision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.case import Case
    from capacity.spec.device import Device

# Effective bits of a stored weight and the format its products run in; scales of groups included.
FORMATS: dict[str, tuple[float, str]] = {
    "fp32": (32.0, "fp32"),
    "tf32": (32.0, "tf32"),
    "bf16": (16.0, "bf16"),
    "fp16": (16.0, "fp16"),
    "fp8": (8.0, "fp8"),
    "int8": (8.0, "int8"),
    "int4": (4.25, "int4"),
    "nvfp4": (4.5, "fp4"),
    "mxfp4": (4.25, "fp4"),
    # Weights alone in 8 bits, unpacked before they are multiplied.
    "fp8wo": (8.0, "bf16"),
    "int8wo": (8.0, "bf16"),
    # llama.cpp's, at the size of whole files of an 8B model (llama.cpp, examples/quantize).
    "q8_0": (8.5, "int4"),
    "q6_k": (6.56, "int4"),
    "q5_k_m": (5.69, "int4"),
    "q5_k_s": (5.54, "int4"),
    "q5_0": (5.5, "int4"),
    "q4_k_m": (4.85, "int4"),
    "q4_k_s": (4.58, "int4"),
    "q4_0": (4.5, "int4"),
    "iq4_xs": (4.25, "int4"),
    "q3_k_m": (3.91, "int4"),
    "q2_k": (3.0, "int4"),
    "iq2_xxs": (2.06, "int4"),
}
_SPELLINGS = {
    "fp4": "nvfp4",
    "float32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "w4a16": "int4",
    "w8a8": "int8",
    "q4": "int4",
    "q8": "int8",
    "4bit": "int4",
    "8bit": "int8",
}
# Formats that inputs of products may be kept in for the backward pass.
SAVED = ("bf16", "fp16", "fp8")


def read_format(name: str, value: str | None, fallback: str) -> tuple[str, float, str]:
    """A number format by its usual spellings: its name, effective bits a weight and compute format."""
    word = fallback if value is None else str(value).lower()
    word = _SPELLINGS.get(word, word)
    one_of(name, word, tuple(FORMATS))
    bits, compute = FORMATS[word]
    return word, bits, compute


def training_precision(case: Case) -> tuple[str, Precision]:
    """Mixed precision as it is usually done: 16-bit weights and activations, fp32 gradients and master weights."""
    word, _, compute = read_format("--precision", case.request.get("precision"), default_format(case.cluster.device))
    frozen = case.request.get("mode") == "lora"
    if word in ("int8", "int4", "mxfp4") and not frozen:
        raise InputError(
            f"--precision {word} is for serving or for the frozen weights of lora; train in bf16, fp16, fp8 or nvfp4"
        )
    if frozen and word in ("int8", "int4", "nvfp4", "mxfp4"):
        # A quantised base is unpacked and multiplied in 16 bits (QLoRA).
        return word, Precision(FORMATS[word][0], 16.0, 32.0, 32.0, 16.0, default_format(case.cluster.device))
    if word in ("fp32", "tf32"):
        return word, Precision(32.0, 32.0, 32.0, 32.0, 16.0, compute)
    saved = case.request.get("saved_precision")
    saved_bits = (
        0.0 if saved is None else read_format("--saved-precision", one_of("--saved-precision", saved, SAVED), "bf16")[1]
    )
    return word, Precision(16.0, 16.0, 32.0, 32.0, 16.0, compute, saved_bits)


def default_format(device: Device) -> str:
    """The 16-bit format a device is fast in, or fp32 where it has none."""
    peaks = device.peak_dense_flop_per_s
    return "bf16" if "bf16" in peaks else "fp16" if "fp16" in peaks else "fp32"
