"""Experts with unusual attention: MiniMax (lightning, block-sparse), Step 3.7, MiMo-V2-Flash, DeepSeek-V4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.errors import InputError, UnsupportedArchitectureError
from capacity.importers import parts
from capacity.importers.huggingface import mixers
from capacity.importers.huggingface.layers import NO_VISION, head_size, heads, layers, per_layer, rotary_size
from capacity.record import replace
from capacity.spec.model import COLUMN, ROW, Attention, Block, Linear, Recurrent

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.importers.huggingface.config import Config
    from capacity.spec.model import Experts, ModelSpec, Sublayer


def _flags(config: Config, name: str, count: int) -> list[bool] | None:
    """A list of 0 and 1 for each layer, or None where the config has none."""
    if not config.has(name):
        return None
    flags = config.items(name)
    if len(flags) < count or any(flag not in (0, 1) for flag in flags[:count]):
        raise InputError(f"{config.where}: {name} must hold 0 or 1 for each of {count} layers")
    return [flag == 1 for flag in flags[:count]]


def minimax(config: Config, name: str) -> ModelSpec:
    """MiniMax-Text-01: lightning attention in most layers, softmax attention in the others, experts in all."""
    hidden = config.count("hidden_size")
    count = layers(config)
    queries, groups = heads(config, 8)
    size = head_size(config, hidden, queries)
    inner = queries * size
    lightning = Recurrent(
        (
            Linear("qkv_proj", hidden, 3 * inner, False, COLUMN),
            Linear("output_gate", hidden, inner, False, COLUMN),
            Linear("out_proj", inner, hidden, False, ROW),
        ),
        "lightning",
        heads=queries,
        key_size=size,
        value_size=size,
        groups=queries,
        chunk=config.count("block_size", 256),
        vector_params=inner,
    )
    attention = parts.attention(hidden, queries, groups, size, window=config.count("sliding_window", 0, least=0))
    experts = _minimax_experts(config, hidden)
    kinds = per_layer(config, "layer_types", count)
    if kinds is None:
        flags = _flags(config, "attn_type_list", count) or [layer % 2 == 1 for layer in range(count)]
        kinds = ["full_attention" if flag else "linear_attention" for flag in flags]

    def layer(kind: str) -> Block:
        mixer: Sublayer = lightning if kind == "linear_attention" else attention
        return Block(1, hidden, (mixer, experts), vector_params=2 * hidden)

    return mixers.assemble(config, name, hidden, parts.stack(kinds, layer), rotary=(size / 2,))


def _minimax_experts(config: Config, hidden: int, shared: int = 0) -> Experts:
    return parts.experts(
        hidden,
        config.count("intermediate_size"),
        config.count("num_local_experts"),
        config.count("num_experts_per_tok"),
        shared_width=shared,
    )


def _partly_rotated(config: Config, size: int) -> float:
    return float(min(config.count("rotary_dim", int(rotary_size(config, size, 1.0)), least=0), size))


def minimax_m2(config: Config, name: str) -> ModelSpec:
    """MiniMax-M2: grouped-query attention with a norm over all heads, experts in every layer."""
    hidden = config.count("hidden_size")
    count = layers(config)
    if not all(_flags(config, "attn_type_list", count) or [True]):
        raise UnsupportedArchitectureError(f"{config.where}: attn_type_list has layers without softmax attention")
    if config.count("shared_intermediate_size", 0, least=0):
        raise UnsupportedArchitectureError(
            f"{config.where}: shared_intermediate_size is not 0; this type has no shared expert"
        )
    queries, groups = heads(config, 8)
    size = head_size(config, hidden, queries, 128)
    attention = parts.attention(
        hidden, queries, groups, size, qk_norm=True, vector_params=(queries + groups) * size,
        rotary_size=_partly_rotated(config, size),
    )  # fmt: skip
    block = Block(count, hidden, (attention, _minimax_experts(config, hidden)), vector_params=2 * hidden)
    return mixers.assemble(
        config, name, hidden, (block,), rotary=(attention.rotary_size / 2,), notes=_without_mtp(config)
    )


def _without_mtp(config: Config) -> tuple[str, ...]:
    ahead = config.count(config.named("num_mtp_modules", "num_nextn_predict_layers"), 0, least=0)
    return ("multi-token-prediction modules not included: the config does not say what they hold",) if ahead else ()


def minimax_m3(config: Config, name: str) -> ModelSpec:
    """MiniMax-M3: attention over blocks of keys an indexer selects, dense layers first, a shared expert."""
    wrapped = config.has("text_config")
    config = mixers.language_model(config, "tie_word_embeddings")
    hidden = config.count("hidden_size")
    count = layers(config)
    queries, groups = heads(config, 4)
    size = head_size(config, hidden, queries, 128)
    if config.flag("attention_output_gate", False):
        raise UnsupportedArchitectureError(
            f"{config.where}: attention_output_gate is true; the published class has none"
        )
    sparse = config.sub("sparse_attention_config", {})
    index_heads = sparse.count("sparse_num_index_heads", config.count("index_n_heads", 4))
    index_size = sparse.count("sparse_index_dim", config.count("index_head_dim", 128))
    block_size = sparse.count("sparse_block_size", config.count("index_block_size", 128))
    top = sparse.count("sparse_topk_blocks", config.count("index_topk_blocks", 16))

    def attention(selects: bool) -> Attention:
        made = parts.attention(
            hidden, queries, groups, size, qk_norm=True, vector_params=2 * size,
            rotary_size=_partly_rotated(config, size),
        )  # fmt: skip
        if not selects:
            return made
        indexer = (
            Linear("index_q_proj", hidden, index_heads * index_size),
            Linear("index_k_proj", hidden, index_size),
        )
        return replace(
            made,
            projections=(*made.projections, *indexer),
            selected=top * block_size,
            indexer_heads=index_heads,
            indexer_size=index_size,
            indexer_value_size=0.0,
            indexer_cache_elements=index_size,
            vector_params=made.vector_params + 2 * index_size,
        )

    def layer(kind: tuple[bool, bool]) -> Block:
        network: Sublayer
        if kind[1]:
            network = _minimax_experts(config, hidden, config.count("shared_intermediate_size", 3072))
        else:
            network = parts.feed_forward(hidden, config.count("dense_intermediate_size", 12288))
        return Block(1, hidden, (attention(kind[0]), network), vector_params=2 * hidden)

    types = per_layer(config, "layer_types", count)
    networks = per_layer(config, "mlp_layer_types", count)
    selecting = (
        [kind == "minimax_m3_sparse" for kind in types]
        if types
        else _flags(sparse, "sparse_attention_freq", count) or [False] * count
    )
    routed = (
        [kind == "sparse" for kind in networks]
        if networks
        else _flags(config, "moe_layer_freq", count) or [True] * count
    )
    blocks = parts.stack(zip(selecting, routed, strict=True), layer)
    rotated = _partly_rotated(config, size)
    notes = (*_without_mtp(config), *((NO_VISION,) if wrapped else ()))
    return mixers.assemble(config, name, hidden, blocks, rotary=(rotated / 2,), notes=notes)


def step(config: Config, name: str) -> ModelSpec:
    """Step 3.7: full and sliding attention with a gate a head, dense layers first, then experts and a shared one."""
    wrapped = config.has("text_config")
    config = mixers.language_model(config, "tie_word_embeddings")
    hidden = config.count("hidden_size")
    count = layers(config)
    queries = config.count("num_attention_heads")
    groups = config.count(config.named("num_key_value_heads", "num_attention_groups"), 8)
    size = config.count("head_dim", 128)
    other = config.sub("attention_other_setting", {})
    known = config.has("num_sliding_attention_heads") or other.has("num_attention_heads")
    local = config.count("num_sliding_attention_heads", other.count("num_attention_heads", queries))
    bias = config.flag("attention_bias", False)
    window = config.count("sliding_window", 0, least=0)
    for number in (queries, local):
        mixers.whole(config, number, groups, "attention heads by num_key_value_heads")

    def attention(kind: str) -> Attention:
        sliding = kind == "sliding_attention"
        number = local if sliding else queries
        return parts.attention(
            hidden, number, groups, size,
            bias=bias, window=window if sliding else None, qk_norm=True, vector_params=2 * size, gate=number,
        )  # fmt: skip

    experts = parts.experts(
        hidden,
        config.count("moe_intermediate_size", 1280),
        config.count(config.named("n_routed_experts", "num_experts", "moe_num_experts", "num_local_experts"), 288),
        config.count(config.named("num_experts_per_tok", "moe_top_k"), 8),
        shared_width=config.count(config.named("share_expert_dim", "share_expert_dims"), 1280),
    )

    def layer(kind: tuple[str, bool]) -> Block:
        network = experts if kind[1] else parts.feed_forward(hidden, config.count("intermediate_size"))
        return Block(1, hidden, (attention(kind[0]), network), vector_params=2 * hidden)

    def listed(field: str) -> list[str] | None:
        """One word a layer; those of prediction layers may follow and are left off."""
        if not config.has(field):
            return None
        short = mixers.truncated(config, field, count)
        return per_layer(short, field, count)

    kinds = listed("layer_types") or ["full_attention"] * count
    networks = listed("mlp_layer_types")
    if networks is None:
        chosen = config.data.get("moe_layers_enum")
        named = [part.strip() for part in chosen.split(",")] if isinstance(chosen, str) else chosen
        dense = config.count("first_k_dense_replace", 3, least=0)
        marked = {str(item) for item in named} if isinstance(named, list) else {str(i) for i in range(dense, count)}
        networks = ["sparse" if str(i) in marked else "dense" for i in range(count)]
    blocks = parts.stack(zip(kinds, [kind == "sparse" for kind in networks], strict=True), layer)
    inferred = None if known else {"num_sliding_attention_heads": f"num_attention_heads ({queries}), as none is given"}
    notes = (*_without_mtp(config), *((NO_VISION,) if wrapped else ()))
    return mixers.assemble(config, name, hidden, blocks, rotary=(size / 2,), notes=notes, inferred=inferred)


def mimo_v2(config: Config, name: str) -> ModelSpec:
    """MiMo-V2-Flash: mostly narrow sliding windows with sinks and twice the KV heads, values narrower than keys."""
    hidden = config.count("hidden_size")
    count = layers(config)
    queries, groups = heads(config, 4)
    size = config.count("head_dim", 192)
    values = config.count("v_head_dim", 128)
    bias = config.flag("attention_bias", False)
    # The sliding layers of the published class differ in their KV heads alone.
    same = {"swa_num_attention_heads": queries, "swa_head_dim": size, "swa_v_head_dim": values}
    for field, value in (*same.items(), ("swa_num_key_value_heads", 2 * groups)):
        if config.count(field, value) != value:
            raise UnsupportedArchitectureError(
                f"{config.where}: {field} is {config.count(field)}; the published class has {value}"
            )
    mixers.whole(config, queries, 2 * groups, "num_attention_heads by the sliding layers' KV heads")
    # The window counts the query's own token besides.
    reach = config.count("sliding_window_size", 0, least=0)
    window = reach + 1 if reach else config.count("sliding_window", 129)

    def layer(kind: tuple[bool, bool]) -> Block:
        sliding = kind[0]
        attention = parts.attention(
            hidden, queries, groups * (2 if sliding else 1), size,
            value_size=values, bias=bias, out_bias=False, window=window if sliding else None,
            vector_params=queries if sliding else 0, rotary_size=rotary_size(config, size, 0.334),
        )  # fmt: skip
        network: Sublayer
        if kind[1]:
            network = parts.experts(
                hidden,
                config.count("moe_intermediate_size"),
                config.count("n_routed_experts"),
                config.count("num_experts_per_tok"),
            )
        else:
            network = parts.feed_forward(hidden, config.count("intermediate_size"))
        return Block(1, hidden, (attention, network), vector_params=2 * hidden)

    types = per_layer(config, "layer_types", count)
    networks = per_layer(config, "mlp_layer_types", count)
    sliding = (
        [kind == "sliding_attention" for kind in types]
        if types
        else _flags(config, "hybrid_layer_pattern", count) or [i > 0 and (i + 1) % 6 > 0 for i in range(count)]
    )
    routed = (
        [kind == "sparse" for kind in networks]
        if networks
        else _flags(config, "moe_layer_freq", count) or [i > 0 for i in range(count)]
    )
    blocks = parts.stack(zip(sliding, routed, strict=True), layer)
    rotated = rotary_size(config, size, 0.334)
    return mixers.assemble(config, name, hidden, blocks, rotary=(rotated / 2, rotated / 2))


_RATES = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}


def _compression(config: Config, count: int) -> list[int]:
    """Tokens folded into one compressed key in each layer, 0 for layers that have only their window."""
    types = per_layer(config, "layer_types", count)
    if types is None:
        ratios = config.items("compress_ratios")
        if len(ratios) < count or any(ratio not in (0, 4, 128) for ratio in ratios):
            raise InputError(f"{config.where}: compress_ratios must hold 0, 4 or 128 for each of {count} layers")
        return list(ratios[:count])
    rates = config.sub("compress_rates", {})
    return [rates.count(kind, _RATES[kind]) if kind in _RATES else 0 for kind in types]


def deepseek_v4(config: Config, name: str) -> ModelSpec:
    """DeepSeek-V4: one key that is its value for all heads, a window and compressed keys, hyper-connections.

    Layers that fold few tokens into a key choose among these keys with an indexer; those that fold many see all.
    Each sublayer reads a mix of `hc_mult` copies of the stream and writes to all of them.
    """
    hidden = config.count("hidden_size")
    count = layers(config)
    queries = config.count("num_attention_heads")
    size = config.count("head_dim", 512)
    rank = config.count("q_lora_rank", 1024)
    pieces, narrow = config.count("o_groups", 8), config.count("o_lora_rank", 1024)
    group_width = mixers.whole(config, queries * size, pieces, "num_attention_heads x head_dim by o_groups")
    index_heads, index_size = config.count("index_n_heads", 64), config.count("index_head_dim", 128)
    streams = config.count("hc_mult", 4)
    width = config.count("moe_intermediate_size")
    rotated = config.count("qk_rope_head_dim", int(rotary_size(config, size, 64 / 512)), least=0)
    types = per_layer(config, "layer_types", count)
    ratios = _compression(config, count)
    sparse_ratio = config.sub("compress_rates", {}).count("compressed_sparse_attention", 4)

    def attention(kind: tuple[int, bool]) -> Attention:
        ratio, indexed = kind
        # Folding few tokens, neighbouring folds overlap: two series, twice the width.
        series = 2 if indexed else 1
        folding: tuple[Linear, ...] = ()
        vectors = rank + size + queries  # norms of query and key vectors; a sink a head
        if ratio:
            folding += (Linear("compress_kv", hidden, series * size), Linear("compress_gate", hidden, series * size))
            vectors += series * size * ratio + size
        if indexed:
            folding += (
                Linear("index_kv", hidden, 2 * index_size),
                Linear("index_gate", hidden, 2 * index_size),
                Linear("index_q_b_proj", rank, index_heads * index_size),
                Linear("index_weights", hidden, index_heads),
            )
            vectors += 2 * index_size * ratio + index_size
        return Attention(
            (
                Linear("q_a_proj", hidden, rank),
                Linear("q_b_proj", rank, queries * size, False, COLUMN),
                Linear("kv_proj", hidden, size),
                Linear("o_a_proj", group_width, pieces * narrow, False, COLUMN),
                Linear("o_b_proj", pieces * narrow, hidden, False, ROW),
                *folding,
            ),
            heads=queries,
            kv_heads=1,
            key_size=size,
            value_size=size,
            window=config.count("sliding_window", 128),
            selected=config.count("index_topk", 512) if indexed else float("inf"),
            cache_elements=size,
            indexer_cache_elements=index_size if indexed else 0.0,
            indexer_heads=index_heads if indexed else 0.0,
            indexer_size=index_size if indexed else 0.0,
            indexer_value_size=0.0,
            compressed=ratio,
            vector_params=vectors,
            rotary_size=rotated,
        )

    experts = parts.experts(
        hidden,
        width,
        config.count("n_routed_experts"),
        config.count("num_experts_per_tok"),
        shared_width=width * config.count("n_shared_experts", 1, least=0),
    )
    # Twice a layer: weights of reading, writing and mixing the copies, from all copies; then the mixing itself.
    weights = (2 + streams) * streams
    connections = tuple(
        linear
        for part in ("attention", "ffn")
        for linear in (
            Linear(f"{part}_connection", streams * hidden, weights),
            Linear(f"{part}_mix", streams, streams * hidden, tied=True),
        )
    )

    def layer(kind: tuple[int, bool]) -> Block:
        return Block(
            1, hidden, (attention(kind), experts), vector_params=2 * hidden + 2 * (weights + 3), extra=connections
        )

    indexed = (
        [kind == "compressed_sparse_attention" for kind in types] if types else [r == sparse_ratio for r in ratios]
    )
    blocks = parts.stack(zip(ratios, indexed, strict=True), layer)
    last = Linear("head_connection", streams * hidden, streams)
    blocks += (Block(1, hidden, (), vector_params=streams + 1, extra=(last,)),)
    times = config.count("num_nextn_predict_layers", 0, least=0)
    if times:
        # A layer with a window alone, fed by the next token's embedding and every copy of the stream.
        ahead = layer((0, False))
        joint = (
            Linear("e_proj", hidden, hidden),
            Linear("h_proj", hidden, hidden),
            Linear("h_proj", hidden, (streams - 1) * hidden, tied=True),
        )
        vectors = ahead.vector_params + 3 * hidden + streams + 1
        blocks += (replace(ahead, count=times, stack="mtp", extra=(*ahead.extra, *joint, last), vector_params=vectors),)
    return mixers.assemble(config, name, hidden, blocks, rotary=(rotated / 2, rotated / 2))


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    "deepseek_ref": deepseek_v4,
    "deepseek_v4": deepseek_v4,
    "mimo_v2_flash": mimo_v2,
    "minimax": minimax,
    "minimax_m2": minimax_m2,
    "minimax_m3": minimax_m3,
    "minimax_m3_vl": minimax_m3,
    "minimax_m3_vl_text": minimax_m3,
    "step3p5": step,
    "step3p7": step,
}
