"""State-space models and other recurrent decoders, alone or beside attention.

Mamba, Falcon-Mamba, Mamba-2; Falcon-H1, Jamba, Bamba, Granite 4.0, Zamba2; RWKV, RecurrentGemma, LFM2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.errors import InputError
from capacity.importers import parts
from capacity.importers.huggingface import mixers
from capacity.importers.huggingface.layers import head_size, heads, layers, per_layer, rotary_size
from capacity.record import replace
from capacity.spec.model import COLUMN, ROW, Block, FeedForward, Linear, Recurrent

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.importers.huggingface.config import Config
    from capacity.spec.model import Attention, ModelSpec, Sublayer

ATTENTION = ("attention", "full_attention")


def _rank(config: Config, field: str, hidden: int) -> int:
    """Rank of Mamba's time step: a sixteenth of the stream unless given."""
    if config.data.get(field) == "auto":
        return -(-hidden // 16)
    rank: int = config.count(field, -(-hidden // 16))
    return rank


def mamba(config: Config, name: str) -> ModelSpec:
    """Mamba and Falcon-Mamba: every layer one Mamba mixer."""
    hidden = config.count("hidden_size")
    mixer = mixers.mamba(
        hidden,
        config.count("expand", 2) * hidden,
        state=config.count("state_size", 16),
        rank=_rank(config, "time_step_rank", hidden),
        kernel=config.count("conv_kernel", 4),
        bias=config.flag("use_bias", False),
        conv_bias=config.flag("use_conv_bias", True),
    )
    block = Block(layers(config), hidden, (mixer,), vector_params=hidden)
    return mixers.assemble(config, name, hidden, (block,), tied=config.flag("tie_word_embeddings", True))


def mamba2(config: Config, name: str) -> ModelSpec:
    """Mamba-2: every layer one Mamba-2 mixer."""
    hidden = config.count("hidden_size")
    mixer = mixers.mamba2(
        config,
        hidden,
        heads=config.count("num_heads", 128),
        head_size=config.count("head_dim", 64),
        state=config.count("state_size", 128),
        groups=config.count("n_groups", 8),
        kernel=config.count("conv_kernel", 4),
        chunk=config.count("chunk_size", 256),
        bias=config.flag("use_bias", False),
        conv_bias=config.flag("use_conv_bias", True),
    )
    block = Block(layers(config), hidden, (mixer,), vector_params=hidden)
    return mixers.assemble(config, name, hidden, (block,))


def _mamba2(
    config: Config, hidden: int, *, inner: int | None = None, norm: bool = True, out_bias: bool | None = None
) -> Recurrent:
    """The Mamba-2 mixer as Bamba and its relatives describe it."""
    width = inner or config.count("mamba_expand", 2) * hidden
    count = config.count("mamba_n_heads", 128)
    size = mixers.whole(config, width, count, "width of the Mamba layers by mamba_n_heads")
    if config.has("mamba_d_head") and config.data["mamba_d_head"] != "auto" and config.count("mamba_d_head") != size:
        raise InputError(f"{config.where}: mamba_d_head is {config.data['mamba_d_head']}; the widths give {size}")
    return mixers.mamba2(
        config,
        hidden,
        heads=count,
        head_size=size,
        state=config.count("mamba_d_state", 256),
        groups=config.count("mamba_n_groups", 1),
        kernel=config.count("mamba_d_conv", 4),
        chunk=config.count("mamba_chunk_size", 256),
        bias=config.flag("mamba_proj_bias", False),
        out_bias=out_bias,
        conv_bias=config.flag("mamba_conv_bias", True),
        norm=norm,
    )


def _attention(config: Config, hidden: int, rotary: float = 1.0) -> Attention:
    queries, groups = heads(config)
    size = head_size(config, hidden, queries)
    return parts.attention(
        hidden, queries, groups, size,
        bias=config.flag("attention_bias", False), rotary_size=rotary_size(config, size, rotary) if rotary else 0.0,
    )  # fmt: skip


def falcon_h1(config: Config, name: str) -> ModelSpec:
    """Falcon-H1: attention and a Mamba-2 mixer side by side in every layer."""
    hidden = config.count("hidden_size")
    scan = _mamba2(
        config,
        hidden,
        inner=config.count("mamba_d_ssm", 0 if "mamba_d_ssm" in config.data else 1024),
        norm=config.flag("mamba_rms_norm", False),
        out_bias=config.flag("projectors_bias", False),
    )
    attention = _attention(config, hidden)
    network = parts.feed_forward(hidden, config.count("intermediate_size"), bias=config.flag("mlp_bias", False))
    block = Block(layers(config), hidden, (scan, attention, network), vector_params=2 * hidden)
    return mixers.assemble(config, name, hidden, (block,), rotary=(attention.rotary_size / 2,))


def jamba(config: Config, name: str) -> ModelSpec:
    """Jamba: Mamba with an attention layer now and then, experts in every other layer."""
    hidden = config.count("hidden_size")
    count = layers(config)
    scan = mixers.mamba(
        hidden,
        config.count("mamba_expand", 2) * hidden,
        state=config.count("mamba_d_state", 16),
        rank=_rank(config, "mamba_dt_rank", hidden),
        kernel=config.count("mamba_d_conv", 4),
        bias=config.flag("mamba_proj_bias", False),
        conv_bias=config.flag("mamba_conv_bias", True),
        norms=True,
    )
    queries, groups = heads(config, 8)
    attention = parts.attention(hidden, queries, groups, hidden // queries, rotary_size=0.0)
    width, experts = config.count("intermediate_size"), config.count("num_experts", 16)

    def layer(kind: tuple[bool, bool]) -> Block:
        network: Sublayer = parts.feed_forward(hidden, width)
        if kind[1]:
            network = parts.experts(hidden, width, experts, config.count("num_experts_per_tok", 2))
        return Block(1, hidden, (attention if kind[0] else scan, network), vector_params=2 * hidden)

    period, offset = config.count("attn_layer_period", 8), config.count("attn_layer_offset", 4, least=0)
    every, first = config.count("expert_layer_period", 2), config.count("expert_layer_offset", 1, least=0)
    kinds = [(i % period == offset, experts > 1 and i % every == first) for i in range(count)]
    return mixers.assemble(config, name, hidden, parts.stack(kinds, layer))


def bamba(config: Config, name: str) -> ModelSpec:
    """Bamba: Mamba-2 with attention in a few listed layers."""
    hidden = config.count("hidden_size")
    scan, attention = _mamba2(config, hidden), _attention(config, hidden, 0.5)
    network = parts.feed_forward(hidden, config.count("intermediate_size"), bias=config.flag("mlp_bias", False))
    attending = config.items("attn_layer_indices", [])

    def layer(attends: bool) -> Block:
        return Block(1, hidden, (attention if attends else scan, network), vector_params=2 * hidden)

    blocks = parts.stack([i in attending for i in range(layers(config))], layer)
    return mixers.assemble(config, name, hidden, blocks, rotary=(attention.rotary_size / 2,))


def granite(config: Config, name: str) -> ModelSpec:
    """Granite 4.0: Mamba-2 or attention, a shared network and, where there are any, experts beside it."""
    hidden = config.count("hidden_size")
    count = layers(config)
    scan = _mamba2(config, hidden)
    rotated = config.data.get("position_embedding_type") == "rope"
    attention = _attention(config, hidden, 1.0 if rotated else 0.0)
    shared, experts = config.count("shared_intermediate_size", 1024), config.count("num_local_experts", 8, least=0)
    network: Sublayer = parts.feed_forward(hidden, shared)
    if experts:
        network = parts.experts(
            hidden,
            config.count("intermediate_size"),
            experts,
            config.count("num_experts_per_tok", 2),
            shared_width=shared,
        )

    def layer(attends: bool) -> Block:
        return Block(1, hidden, (attention if attends else scan, network), vector_params=2 * hidden)

    kinds = per_layer(config, config.named("layer_types", "layers_block_type"), count) or ["mamba"] * count
    blocks = parts.stack([kind in ATTENTION for kind in kinds], layer)
    rotary = (attention.rotary_size / 2,) if rotated else ()
    return mixers.assemble(config, name, hidden, blocks, rotary=rotary)


def _tied(sublayer: Attention | FeedForward) -> Attention | FeedForward:
    """The same sublayer with another layer's weights: computed, not stored."""
    borrowed = tuple(replace(linear, tied=True, bias=False) for linear in sublayer.projections)
    return replace(sublayer, projections=borrowed, vector_params=0.0)


def zamba2(config: Config, name: str) -> ModelSpec:
    """Zamba2: Mamba-2 layers, some after an attention block whose weights a few blocks share in turn.

    Such a block reads the stream beside the embeddings, twice as wide; each use of it has adapters of its own.
    """
    hidden = config.count("hidden_size")
    count = layers(config)
    queries, groups = heads(config)
    bias = config.flag("add_bias_linear", False)
    inner = config.count("intermediate_size", 4 * hidden)
    rank = config.count("adapter_rank", 128)
    size = 2 * hidden // queries
    per_head = mixers.whole(
        config,
        config.count("mamba_expand", 2) * hidden,
        config.count("n_mamba_heads", 8),
        "Mamba width by n_mamba_heads",
    )
    scan = mixers.mamba2(
        config,
        hidden,
        heads=config.count("n_mamba_heads", 8),
        head_size=per_head,
        state=config.count("mamba_d_state", 64),
        groups=config.count("mamba_ngroups", 1),
        kernel=config.count("mamba_d_conv", 4),
        chunk=config.count("chunk_size", 256),
        bias=bias,
    )
    rotated = config.flag("use_mem_rope", False)
    attention = parts.attention(
        2 * hidden, queries, groups, size, out=hidden, vector_params=3 * hidden, rotary_size=size if rotated else 0.0
    )
    network = parts.feed_forward(hidden, inner, bias=bias)
    adapters = [Linear("ffn_adapter_down", hidden, rank), Linear("ffn_adapter_up", rank, 2 * inner)]
    if config.flag("use_shared_attention_adapter", False):
        for part in ("q", "k", "v"):
            adapters += [
                Linear(f"{part}_adapter_down", 2 * hidden, rank),
                Linear(f"{part}_adapter_up", rank, 2 * hidden),
            ]

    def layer(kind: str) -> Block:
        if kind == "mamba":
            return Block(1, hidden, (scan,), vector_params=hidden)
        shared = (attention, network) if kind == "first use" else (_tied(attention), _tied(network))
        extra = (*adapters, Linear("after_attention", hidden, hidden))
        return Block(1, hidden, (*shared, scan), vector_params=hidden, extra=extra)

    given = per_layer(config, config.named("layers_block_type", "layer_types"), count)
    if given is None:
        raise InputError(f"{config.where}: layers_block_type is missing; the architecture needs it")
    kinds, uses = [], 0
    for kind in given:
        uses += kind == "hybrid"
        first = uses <= config.count("num_mem_blocks", 1)
        kinds.append("mamba" if kind != "hybrid" else "first use" if first else "later use")
    return mixers.assemble(
        config, name, hidden, parts.stack(kinds, layer),
        tied=config.flag("tie_word_embeddings", True), rotary=(size / 2,) if rotated else (),
    )  # fmt: skip


def rwkv(config: Config, name: str) -> ModelSpec:
    """RWKV-4: a running weighted mean of values instead of attention, and a gated network with squared ReLU."""
    hidden = config.count("hidden_size")
    width = config.count("attention_hidden_size", hidden)
    inner = config.count("intermediate_size", 4 * hidden)
    time_mix = Recurrent(
        (
            Linear("key", hidden, width, False, COLUMN),
            Linear("value", hidden, width, False, COLUMN),
            Linear("receptance", hidden, width, False, COLUMN),
            Linear("output", width, hidden, False, ROW),
        ),
        "rwkv",
        heads=width,
        key_size=1.0,
        # A channel keeps the weighted sum, the sum of weights and their largest exponent.
        value_size=3.0,
        chunk=1.0,
        vector_params=2 * width + 3 * hidden,
    )
    channel_mix = FeedForward(
        (
            Linear("key", hidden, inner, False, COLUMN, "ffn"),
            Linear("receptance", hidden, hidden, False, COLUMN, "ffn"),
            Linear("value", inner, hidden, False, ROW, "ffn"),
        ),
        inner,
        gated=False,
        vector_params=2 * hidden,
    )
    # Layer norms have a weight and a bias; the embeddings have one of their own.
    block = Block(layers(config), hidden, (time_mix, channel_mix), vector_params=4 * hidden)
    first = Block(1, hidden, (), vector_params=2 * hidden)
    positions = config.count(config.named("context_length", "max_position_embeddings"), 0, least=0)
    return mixers.assemble(config, name, hidden, (first, block), final_norm=2 * hidden, max_positions=positions)


def recurrent_gemma(config: Config, name: str) -> ModelSpec:
    """RecurrentGemma (Griffin): two gated linear recurrences to one local attention."""
    hidden = config.count("hidden_size")
    queries, groups = heads(config)
    width = config.count("lru_width", hidden)
    block_width = mixers.whole(config, width, queries, "lru_width by num_attention_heads")
    size = hidden // queries
    scan = Recurrent(
        (
            Linear("linear_y", hidden, width, True, COLUMN),
            Linear("linear_x", hidden, width, True, COLUMN),
            # The gates' maps are block-diagonal, a block a head.
            Linear("input_gate", block_width, width, True, COLUMN),
            Linear("recurrent_gate", block_width, width, True, COLUMN),
            Linear("linear_out", width, hidden, True, ROW),
        ),
        "rg_lru",
        heads=width,
        key_size=1.0,
        value_size=1.0,
        conv_channels=width,
        conv_kernel=config.count("conv1d_width", 4),
        conv_bias=True,
        chunk=1.0,
        vector_params=width,
    )
    attention = parts.attention(
        hidden, queries, groups, size,
        bias=config.flag("attention_bias", False), out_bias=True,
        window=config.count(config.named("attention_window_size", "sliding_window"), 2048),
        rotary_size=rotary_size(config, size, 0.5),
    )  # fmt: skip
    # The config counts both halves of the gated network.
    network = parts.feed_forward(hidden, config.count("intermediate_size", least=2) // 2, bias=True)
    cycle = config.items("block_types", ["recurrent", "recurrent", "attention"])
    if not cycle:
        raise InputError(f"{config.where}: block_types is empty; give the kinds of layers that repeat")

    def layer(attends: bool) -> Block:
        return Block(1, hidden, (attention if attends else scan, network), vector_params=2 * hidden)

    blocks = parts.stack([cycle[i % len(cycle)] != "recurrent" for i in range(layers(config))], layer)
    return mixers.assemble(
        config, name, hidden, blocks,
        tied=config.flag("tie_word_embeddings", True), rotary=(attention.rotary_size / 2,),
    )  # fmt: skip


def lfm2(config: Config, name: str) -> ModelSpec:
    """LFM2: gated short convolutions with attention in a few layers; dense, or with experts after the first layers."""
    hidden = config.count("hidden_size")
    count = layers(config)
    queries, groups = heads(config, 8)
    size = head_size(config, hidden, queries)
    attention = parts.attention(hidden, queries, groups, size, qk_norm=True, vector_params=2 * size)
    bias = config.flag("conv_bias", False)
    convolution = Recurrent(
        (Linear("in_proj", hidden, 3 * hidden, bias, COLUMN), Linear("out_proj", hidden, hidden, bias, ROW)),
        "short_conv",
        heads=0.0,
        key_size=0.0,
        value_size=0.0,
        conv_channels=hidden,
        conv_kernel=config.count("conv_L_cache", 3),
        conv_bias=bias,
    )
    routed = config.text("model_type") == "lfm2_moe"
    width = config.count(config.named("block_ff_dim", "intermediate_size"))
    if not routed and config.flag("block_auto_adjust_ff_dim", True):
        width = int(2 * width / 3)
        factor = config.number("block_ffn_dim_multiplier", 1.0)
        if not 0 < factor < 1000:
            raise InputError(
                f"{config.where}: block_ffn_dim_multiplier is {str(factor)[:40]}; it must be above 0, below 1000"
            )
        step = config.count("block_multiple_of", 256)
        width = -(-int(factor * width) // step) * step
    dense = config.count("num_dense_layers", 2, least=0) if routed else count

    def layer(kind: tuple[bool, bool]) -> Block:
        network: Sublayer = parts.feed_forward(hidden, width)
        if kind[1]:
            experts, active = config.count("num_experts", 32), config.count("num_experts_per_tok", 4)
            network = parts.experts(hidden, config.count("moe_intermediate_size", 1792), experts, active)
        return Block(1, hidden, (attention if kind[0] else convolution, network), vector_params=2 * hidden)

    kinds = per_layer(config, "layer_types", count)
    attending = config.items("full_attn_idxs", list(range(count))) if kinds is None else []
    attends = [i in attending for i in range(count)] if kinds is None else [kind in ATTENTION for kind in kinds]
    blocks = parts.stack([(attends[i], i >= dense) for i in range(count)], layer)
    tied = config.flag(config.named("tie_embedding", "tie_word_embeddings"), True)
    return mixers.assemble(config, name, hidden, blocks, tied=tied, rotary=(size / 2,))


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    "bamba": bamba,
    "falcon_h1": falcon_h1,
    "falcon_mamba": mamba,
    "granitemoehybrid": granite,
    "jamba": jamba,
    "lfm2": lfm2,
    "lfm2_moe": lfm2,
    "mamba": mamba,
    "mamba2": mamba2,
    "recurrent_gemma": recurrent_gemma,
    "rwkv": rwkv,
    "zamba2": zamba2,
}
