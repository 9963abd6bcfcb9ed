"""Which weights of a served checkpoint are kept in which format."""

from __future__ import annotations

from capacity.estimators.formats import FORMATS
from capacity.spec.model import Attention, Experts, Recurrent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.model import ModelSpec
    from capacity.spec.op import Op

# Groups that quantised checkpoints leave at 16 bits.
KEPT_GROUPS = ("embedding", "head", "router")
# Published NVFP4 mixtures of experts leave attention at 16 bits, MXFP4 ones all but the experts.
_LEFT = {"nvfp4": ("attention", "vision"), "mxfp4": ("attention", "vision", "ffn", "shared_expert")}
# ... but the output of latent attention, the largest of its maps (NVIDIA, DeepSeek-R1-0528-FP4-v2 model card, 2025).
_LATENT_OUTPUT = "attention.o_proj"
_WIDE = ("bf16", 2.0)
# llama.cpp keeps the output head in 6 bits at least.
_LEAST_HEAD_BITS = 6.56


def checkpoint_formats(
    model: ModelSpec, word: str, stated_bits: float | None = None, *, as_gguf: bool = False
) -> dict[str, tuple[str, float]]:
    """Format and stored bytes of a weight by precision group, "" for any other.

    word: a key of FORMATS; stated_bits: effective bits where they differ from that format's usual ones. A model that was published in this format keeps what its publisher kept.
    as_gguf: as llama.cpp's files hold it.
    """
    if as_gguf and word == "mxfp4":
        # Its own blocks for experts, 8 bits for the rest (llama-quantize, MXFP4_MOE).
        found = checkpoint_formats(model, word, stated_bits)
        return {
            group: (("gguf", width) if width < 2.0 else ("gguf", FORMATS["q8_0"][0] / 8.0))
            for group, (_, width) in found.items()
        }
    usual_bits, _ = FORMATS[word]
    bits = stated_bits or usual_bits
    format = kernel_format(word)
    if bits >= 16.0:
        return {"": (format, bits / 8.0)}
    mixture = has_experts(model)
    if word == "fp8" and mixture:
        format = "fp8_block"
    if model.weight_bits and model.weight_format == word and stated_bits is None:
        return {
            group: (format, width / 8.0) if width < 12.0 else _WIDE for group, width in model.weight_bits.items()
        } | dict.fromkeys(KEPT_GROUPS, _WIDE)
    formats = {"": (format, bits / 8.0)} | dict.fromkeys(KEPT_GROUPS, _WIDE)
    if is_gguf(word):
        head = (format, max(bits, _LEAST_HEAD_BITS) / 8.0)
        return formats | {"head": head, "embedding": head}
    if mixture:
        formats |= dict.fromkeys(_LEFT.get(word, ()), _WIDE)
    if mixture and word == "nvfp4":
        layers = [layer for block in model.blocks for layer in block.sublayers]
        published = {} if model.weight_format in (None, "", "fp8") else model.weight_bits or {}
        # What a publisher kept wide beside his own narrow experts, others who quantise it keep too (NVIDIA, Kimi-K2.5-NVFP4).
        formats |= {group: _WIDE for group, width in published.items() if group and width >= 12.0}
        if any(isinstance(layer, Recurrent) for layer in layers):
            formats["shared_expert"] = _WIDE
        if not published and any(isinstance(layer, Attention) and layer.latent for layer in layers):
            formats[_LATENT_OUTPUT] = formats[""]
    return formats


def format_of(formats: dict[str, tuple[str, float]], op: Op) -> tuple[str, float]:
    """Name and stored bytes of an op's weights: of the map itself, of its group, of any other."""
    own = f"{op.group}.{op.name.rpartition('.')[2]}"
    return formats.get(own) or formats.get(op.group) or formats[""]


def kernel_format(word: str) -> str:
    """The format whose kernels run weights of this one."""
    if word in ("nvfp4", "mxfp4"):
        return "fp4"
    if is_gguf(word):
        # The narrow iq formats are looked up in a code book; iq4_xs has blocks as the k formats have.
        return (
            "gguf_iq"
            if word.startswith(("iq1", "iq2", "iq3"))
            else "gguf_k"
            if "_k" in word or word == "iq4_xs"
            else "gguf"
        )
    return word


def is_gguf(word: str) -> bool:
    """Whether a format is one of llama.cpp's."""
    return word.startswith(("q", "iq")) and "_" in word


def has_experts(model: ModelSpec) -> bool:
    """Whether some layer is a mixture of experts."""
    return any(isinstance(layer, Experts) for block in model.blocks for layer in block.sublayers)
