"""Gemma 3n and Gemma 4: inputs of their own for each layer, keys shared between layers, two head sizes, experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.errors import InputError
from capacity.importers import parts
from capacity.importers.huggingface import mixers
from capacity.importers.huggingface.config import Config
from capacity.importers.huggingface.layers import NO_VISION, heads, layers, per_layer
from capacity.record import replace
from capacity.spec.model import REPLICATED, Block, Embedding, Linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.spec.model import Attention, ModelSpec, Sublayer

NO_TOWERS = NO_VISION.replace("vision tower", "vision and audio towers")


def _shared(attention: Attention, size: int) -> Attention:
    """A layer that reads the keys and values an earlier layer stored: no maps, norm or cache of its own."""
    own = tuple(linear for linear in attention.projections if linear.name not in ("k_proj", "v_proj"))
    return replace(attention, projections=own, cache_elements=0.0, vector_params=size)


def _own_inputs(hidden: int, width: int) -> tuple[Linear, ...]:
    """What a layer does with its own input: a gate down to its width and a map back."""
    return (
        Linear("per_layer_input_gate", hidden, width, False, REPLICATED, "ffn"),
        Linear("per_layer_projection", width, hidden, False, REPLICATED, "ffn"),
    )


def _own_tables(config: Config, hidden: int, width: int, count: int) -> tuple[Block, Embedding]:
    """Where the layers' inputs come from: a table of their own and a projection of the token's embedding."""
    projection = Linear("per_layer_model_projection", hidden, width * count, False, REPLICATED, "ffn")
    rows = config.count("vocab_size_per_layer_input", config.count("vocab_size"))
    return (
        Block(1, hidden, (), vector_params=width, extra=(projection,)),
        Embedding("per_layer", rows, width * count),
    )


def _kinds(config: Config, count: int, pattern: int) -> tuple[list[str], list[bool]]:
    """For each layer its kind of attention, and whether it reads an earlier layer's keys."""
    kinds = per_layer(config, "layer_types", count) or [
        "full_attention" if (layer + 1) % pattern == 0 else "sliding_attention" for layer in range(count)
    ]
    shared = config.count("num_kv_shared_layers", 0, least=0)
    if shared >= count:
        raise InputError(f"{config.where}: num_kv_shared_layers is {shared} of {count} layers; one must keep its keys")
    return kinds, [layer >= count - shared for layer in range(count)]


def gemma4(config: Config, name: str) -> ModelSpec:
    """Gemma 4: sliding and global attention of different head sizes, dense networks and, where enabled, experts beside."""
    wrapped = config.has("text_config")
    config = mixers.language_model(config, "tie_word_embeddings")
    hidden = config.count("hidden_size")
    count = layers(config)
    queries, groups = heads(config, 4)
    size = config.count("head_dim", 256)
    bias = config.flag("attention_bias", False)
    same = config.flag("attention_k_eq_v", False)
    # A reloaded config holds what differs in global layers as overrides of single layers.
    first: Any = next(iter(config.sub("per_layer_config", {}).data.values()), None)
    override = Config(first if isinstance(first, dict) else {}, config.where)
    global_size = config.count("global_head_dim", override.count("head_dim", 512))
    global_groups = config.count("num_global_key_value_heads", override.count("num_key_value_heads", groups))
    mixers.whole(config, queries, global_groups, "num_attention_heads by num_global_key_value_heads")
    window = config.count("sliding_window", 512, least=0)
    width = config.count("hidden_size_per_layer_input", 256, least=0)
    inner = config.count("intermediate_size")
    routed = config.flag("enable_moe_block", False)

    def attention(kind: str, reads: bool) -> Attention:
        sliding = kind == "sliding_attention"
        own = size if sliding else global_size
        made = parts.attention(
            hidden, queries, groups if sliding or not same else global_groups, own,
            bias=bias, window=window if sliding else None, qk_norm=True, vector_params=2 * own,
            rotary_size=own if sliding else own / 4,
        )  # fmt: skip
        if reads:
            return _shared(made, own)
        if same and not sliding:  # values are the keys before their norm
            return replace(made, projections=tuple(item for item in made.projections if item.name != "v_proj"))
        return made

    def layer(kind: tuple[str, bool]) -> Block:
        double = kind[1] and config.flag("use_double_wide_mlp", False)
        sublayers: list[Sublayer] = [attention(*kind), parts.feed_forward(hidden, inner * (2 if double else 1))]
        norms = 4 * hidden
        if routed:
            experts = config.count("num_experts")
            # The router scales its input by feature and its choice by expert.
            sublayers.append(
                parts.experts(
                    hidden,
                    config.count("moe_intermediate_size"),
                    experts,
                    config.count("top_k_experts"),
                    vector_params=hidden + experts,
                )
            )
            norms += 3 * hidden
        if width:
            norms += hidden
        return Block(
            1, hidden, tuple(sublayers), vector_params=norms, extra=_own_inputs(hidden, width) if width else ()
        )

    kinds, reads = _kinds(config, count, 6)
    blocks = parts.stack(zip(kinds, reads, strict=True), layer)
    embeddings: tuple[Embedding, ...] = ()
    if width:
        first, table = _own_tables(config, hidden, width, count)
        blocks, embeddings = (first, *blocks), (table,)
    return mixers.assemble(
        config, name, hidden, blocks,
        tied=config.flag("tie_word_embeddings", True), embeddings=embeddings,
        rotary=(size / 2, global_size / 8), notes=(NO_TOWERS,) if wrapped else (),
    )  # fmt: skip


def gemma3n(config: Config, name: str) -> ModelSpec:
    """Gemma 3n: several copies of the stream of which each layer works on one (AltUp), and low-rank residuals (LAuReL)."""
    wrapped = config.has("text_config")
    config = mixers.language_model(config, "tie_word_embeddings")
    hidden = config.count("hidden_size")
    count = layers(config)
    queries, groups = heads(config, 2)
    size = config.count("head_dim", 256)
    bias = config.flag("attention_bias", False)
    window = config.count("sliding_window", 512, least=0)
    width = config.count("hidden_size_per_layer_input", 256)
    rank = config.count("laurel_rank", 64)
    streams = config.count("altup_num_inputs", 4)
    inner = config.data.get("intermediate_size")
    widths = config.items("intermediate_size") if isinstance(inner, (list, tuple)) else [inner] * count
    if len(widths) != count or not all(isinstance(item, int) and 0 < item < 10**9 for item in widths):
        raise InputError(f"{config.where}: intermediate_size must be a whole number, or one for each of {count} layers")

    def layer(kind: tuple[str, bool, int]) -> Block:
        made = parts.attention(
            hidden, queries, groups, size,
            bias=bias, window=window if kind[0] == "sliding_attention" else None, qk_norm=True, vector_params=2 * size,
        )  # fmt: skip
        mixed = (
            # Which copies matter is asked before and after the layer, by the same router.
            Linear("altup_router", hidden, streams, False, REPLICATED, "router"),
            Linear("altup_router", hidden, streams, False, REPLICATED, "router", tied=True),
            Linear("altup_prediction", streams, streams * streams),
            Linear("altup_correction", streams, streams),
            Linear("altup_mix", streams, streams * hidden, tied=True),
            Linear("laurel_left", hidden, rank),
            Linear("laurel_right", rank, hidden),
        )
        return Block(
            1, hidden, (_shared(made, size) if kind[1] else made, parts.feed_forward(hidden, kind[2])),
            # Norms: four of a layer, of its own input, of the router and of the low-rank residual; a scale.
            vector_params=8 * hidden, extra=(*mixed, *_own_inputs(hidden, width)),
        )  # fmt: skip

    kinds, reads = _kinds(config, count, 5)
    first, table = _own_tables(config, hidden, width, count)
    # Each further copy of the stream has a map in and a map out.
    copies = Block(
        streams - 1, hidden, (), extra=tuple(Linear(f"altup_{way}", hidden, hidden) for way in ("in", "out"))
    )
    return mixers.assemble(
        config, name, hidden, (first, copies, *parts.stack(zip(kinds, reads, widths, strict=True), layer)),
        tied=config.flag("tie_word_embeddings", True), embeddings=(table,),
        rotary=(size / 2, size / 2), notes=(NO_TOWERS,) if wrapped else (),
    )  # fmt: skip


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    "gemma3n": gemma3n,
    "gemma3n_text": gemma3n,
    "gemma4": gemma4,
    "gemma4_text": gemma4,
}
