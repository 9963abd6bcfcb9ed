"""A plausible model for a bare number of parameters: `--params 7e9`.

The shape follows what published dense decoders have in common, listed here as layers x hidden size:

    SmolLM2 135M 30 x 576, 1.7B 24 x 2048; Llama 3.2 1B 16 x 2048, 3B 28 x 3072; Qwen3 0.6B 28 x 1024,
    8B 36 x 4096, 32B 64 x 5120; Llama 2/3 7B 32 x 4096, 13B 40 x 5120, 70B 80 x 8192, 405B 126 x 16384;
    Gemma 2 2B 26 x 2304, 27B 46 x 4608; Falcon 180B 80 x 14848; GPT-3 175B 96 x 12288;
    Nemotron-4 340B 96 x 18432; PaLM 540B 118 x 18432.

1. The aspect ratio (hidden size per layer) is 128 from about 6.5 billion parameters on, within a factor of 1.6 either
   way; below that it falls as N^0.16, to 64 at GPT-2's 85 million outside the embedding.
2. A layer has some 10.7 hidden^2 parameters (2.3 attention, 8.4 the network), so N = 10.7 layers hidden^2 gives both.
3. Hidden size and heads are rounded as published models are (heads of 128 from a hidden size of 2048 on, eight KV
   heads); layers are then counted for a gated feed-forward network 2.8 times as wide as the stream, and its width is
   set so that the exact number of parameters is what was asked for.
"""

from __future__ import annotations

from capacity import ops
from capacity.errors import InputError
from capacity.importers import parts
from capacity.quantities import format as shown
from capacity.quantities import format_exact
from capacity.record import Record
from capacity.spec.model import Block, ModelSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEAST_PARAMS, MOST_PARAMS = 1e6, 1e13
LARGEST_ASPECT, ASPECT_PARAMS, ASPECT_POWER = 128.0, 6.5e9, 0.16
PARAMS_PER_HIDDEN_SQUARE = 10.7
FFN_RATIO = 2.8
# Largest error of the parameter count; the width of the network is a multiple of as many features as this allows.
TOLERANCE = 0.0025
# Qwen3 and Llama 3.2 share the embedding with the head up to 4B and 3B, not above.
TIED_BELOW = 4e9
# Of byte-like tokenisers, TinyStories, Llama 2, SmolLM2, Llama 3, Qwen3 and Gemma.
VOCABULARIES = (1024, 8192, 32000, 49152, 128256, 151936, 256000)
# Share of a model's parameters its token table may take: 0.21 in Llama 3.2 1B, 0.30 in Gemma 3 1B.
LARGEST_TABLE_SHARE = 0.3


class Style(Record):
    """How a published family departs from the middle of the road.

    aspect: factor on the aspect ratio. kv_heads: at most so many KV heads (0: as many as heads).
    vocabulary: the largest that its size affords. context: longest sequence.
    """

    name: str
    aspect: float = 1.0
    kv_heads: int = 8
    vocabulary: int = 128256
    context: int = 131072


MIDDLE = Style("grouped-query attention with 8 KV heads, vocabulary of Llama 3")
STYLES = (
    MIDDLE,
    Style("deep and narrow, vocabulary of Qwen3", aspect=0.5, vocabulary=151936),
    Style("wide and shallow, strongly grouped attention", aspect=1.5, kv_heads=4),
    Style("multi-head attention and a vocabulary of 32,000, as Llama 2", kv_heads=0, vocabulary=32000, context=4096),
    Style(
        "a vocabulary of 256,000 and few KV heads, as Gemma", aspect=0.8, kv_heads=4, vocabulary=256000, context=8192
    ),
)


def infer_shape(params: float) -> ModelSpec:
    """The middle of what is published at a size: a dense decoder with `params` parameters, to 0.25 %.

    Its `inferred` says what each guessed fact was guessed from. Raises InputError outside 1e6..1e13.
    """
    return _shape(params, MIDDLE)


def plausible_shapes(params: float) -> tuple[ModelSpec, ...]:
    """Models of one size in the styles that are published, the middle one first; intervals are taken over them.

    They span deep and narrow (Qwen3-32B: 80 per layer, SmolLM2) to wide and shallow (Falcon-180B: 186, Nemotron-4:
    192), all heads with keys of their own (Llama 2) to one in eight or fewer (Llama 3, Gemma 3, Qwen3), and
    vocabularies from 32,000 to 256,000 where the size affords it.
    """
    return tuple(_shape(params, style) for style in STYLES)


def _shape(params: float, style: Style) -> ModelSpec:
    """A shape of a size, or shapes of a column of sizes that share their embedding alike."""
    if not ops.is_column(params) and not LEAST_PARAMS <= params <= MOST_PARAMS:
        raise InputError(
            f"params is {params:g}; a shape can be inferred from {LEAST_PARAMS:g} to {MOST_PARAMS:g}; "
            "give a config or a model's name for others"
        )
    tied = ops.everywhere(params < TIED_BELOW)
    hidden, head = _hidden(params, style.aspect)
    heads = hidden // head
    kv_heads = 1.0 if style.kv_heads else heads
    for count in range(2, style.kv_heads + 1):
        kv_heads = ops.where(heads % count == 0, float(count), kv_heads)
    vocabulary = float(VOCABULARIES[0])
    for size in VOCABULARIES:
        affordable = (size <= style.vocabulary) & (size * hidden <= LARGEST_TABLE_SHARE * params)
        vocabulary = ops.where(affordable, float(size), vocabulary)
    # What does not depend on the width of the feed-forward network.
    outside = vocabulary * hidden * (1 if tied else 2) + hidden
    layer = 2 * hidden * head * (heads + kv_heads) + 2 * hidden
    layers = _even((params - outside) / (layer + 3 * FFN_RATIO * hidden * hidden))
    width = _width(params - outside - layers * layer, layers * 3 * hidden, TOLERANCE * params)
    hidden, head, heads, kv_heads, vocabulary, layers, width = (
        value if ops.is_column(value) else int(value)
        for value in (hidden, head, heads, kv_heads, vocabulary, layers, width)
    )
    block = Block(
        layers,
        hidden,
        (parts.attention(hidden, heads, kv_heads, head), parts.feed_forward(hidden, width)),
        vector_params=2 * hidden,
    )
    # A column of shapes has no words of its own; its names are made of the sizes where one is asked for.
    column = ops.is_column(params)
    return parts.decoder(
        name=Names(params) if column else f"{_size(params)} dense decoder",  # type: ignore[arg-type]
        architecture="dense decoder",
        source="inferred from the number of parameters",
        hidden=hidden,
        vocab_size=vocabulary,
        blocks=(block,),
        tied=tied,
        rotary=(head / 2,),
        max_positions=style.context,
        inferred={}
        if column
        else {
            "style": style.name,
            "layers": f"{layers}: aspect ratio of published dense decoders of this size",
            "hidden": f"{hidden}: aspect ratio of published dense decoders of this size",
            "heads": f"{heads} of {head}: head size usual at this hidden size",
            "kv_heads": f"{kv_heads}: {style.name}",
            "ffn_width": f"{width}: what is left of the parameters, gated",
            "vocab_size": f"{vocabulary}: {style.name}, at most {LARGEST_TABLE_SHARE:.0%} of the parameters",
            "tied_embeddings": f"{'yes' if tied else 'no'}: usual below {TIED_BELOW:g} parameters",
            "experts": "none: a dense model",
            "max_positions": f"{style.context}: {style.name}",
        },
    )


class Names:
    """Names of the shapes of a column of sizes, each made when it is asked for."""

    ndim = 1
    dtype = "text"

    def __init__(self, params: Any) -> None:
        self.params = params

    def __getitem__(self, row: Any) -> Any:
        params = self.params[row]
        return Names(params) if ops.is_column(params) else f"{_size(float(params))} dense decoder"


def _hidden(params: float, aspect: float) -> tuple[float, float]:
    """Hidden size and head size."""
    ratio = aspect * ops.minimum(LARGEST_ASPECT, LARGEST_ASPECT * (params / ASPECT_PARAMS) ** ASPECT_POWER)
    size = ratio ** (1 / 3) * (params / PARAMS_PER_HIDDEN_SQUARE) ** (1 / 3)
    hidden, head = ops.maximum(16.0, ops.rounded(size / 16) * 16), 16.0
    for least, step, wide in ((64, 64, 32), (512, 128, 64), (1024, 256, 64), (2048, 512, 128), (4096, 1024, 128)):
        rounded = ops.rounded(size / step) * step
        hidden, head = ops.where(rounded >= least, rounded, hidden), ops.where(rounded >= least, float(wide), head)
    return hidden, head


def _size(params: float) -> str:
    """A number of parameters as models are called by it: 7B, 1.5B, 6.74B."""
    exact = format_exact(params, "1")
    return exact if len(exact) < 7 else shown(params, "1")


def _even(layers: float) -> float:
    """Nearest whole number, even from eight on."""
    few, many = ops.maximum(1.0, ops.rounded(layers)), 2.0 * ops.rounded(layers / 2.0)
    return ops.where(layers < 8.0, few, many)


def _width(params: float, params_per_feature: float, tolerance: float) -> float:
    """Inner width that spends `params`, the roundest that is within `tolerance`."""
    exact = params / params_per_feature
    width = ops.maximum(1.0, ops.rounded(exact))
    for step in (2, 4, 8, 16, 32, 64, 128, 256):
        rounded = ops.maximum(1.0, ops.rounded(exact / step)) * step
        width = ops.where(abs(rounded - exact) * params_per_feature <= tolerance, rounded, width)
    return width
