"""What the decoder families share: how their configs name sizes, windows and experts, and one assembly of layers."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.importers import parts
from capacity.record import Record, replace
from capacity.spec.model import REPLICATED, Block, Linear

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from capacity.importers.huggingface.config import Config
    from capacity.spec.model import Attention, Experts, FeedForward, ModelSpec

Rule = bool | tuple[str, bool]
WINDOWED = ("sliding_attention", "chunked_attention")
NO_VISION = "vision tower not included: only the language model is counted"


class Family(Record):
    """The few facts in which one decoder family differs from another.

    A `Rule` is a fixed answer, or the config field ("one|or another") that gives it with its default.
    norms: norm weights of a layer, and final_norm of the model's end, in multiples of the hidden size;
    more_norms: those a layer has besides if more_norms_if holds.
    qk_norm: "" for none, "head" for one weight per feature of a head, "all" for one per feature of all heads;
    qk_norm_if: whether it is there.
    head, kv: head size and KV heads where the config gives none (0: hidden / heads, and as many as heads).
    windows: which layers have a window when the config lists no layer types: "none", "all", "above"
    (from max_window_layers on, if use_sliding_window), "chunked" (where no_rope_layers is not 0), or a number n:
    all but every n-th, or of -n: all but the first of every n; window: its width when the config does not name it.
    dense_width: the field that gives the width of dense networks; dense_vectors: parameters of their activation.
    gate: the attention output is gated by a projection of its own width.
    sinks: an attention sink per head. mixer: what builds the attention, from config, hidden size and the layer's
    variant; variants: that of each layer. experts: what builds the experts of a sparse layer; sparse: which layers are.
    mtp: the checkpoint holds layers for multi-token prediction.
    """

    norms: float = 2.0
    more_norms: float = 0.0
    more_norms_if: Rule = True
    final_norm: float = 1.0
    qkv_bias: Rule = False
    out_bias: Rule = False
    mlp_bias: Rule = False
    head_bias: Rule = False
    qk_norm: str = ""
    qk_norm_if: Rule = True
    gated: bool = True
    head: int = 0
    kv: int = 0
    tied: bool = False
    rotary: float = 1.0
    windows: str | int = "none"
    window: int = 4096
    gate: bool = False
    sinks: bool = False
    dense_width: str = "intermediate_size"
    dense_vectors: int = 0
    mixer: Callable[[Config, int, Any], Attention] | None = None
    variants: Callable[[Config, int], list[Any]] | None = None
    experts: Callable[[Config, int], Experts] | None = None
    sparse: Callable[[Config, int], list[bool]] | None = None
    mtp: bool = False


def answer(config: Config, rule: Rule) -> bool:
    """Whether a rule holds for a config."""
    if isinstance(rule, bool):
        return rule
    names, default = rule
    return config.flag(config.named(*names.split("|")), default)


def layers(config: Config) -> int:
    """Number of layers."""
    return parts.layer_count(config.count("num_hidden_layers"), config.where)


def per_layer(config: Config, name: str, count: int) -> list[str] | None:
    """A list of one word per layer, or None where the config has none."""
    if not config.has(name):
        return None
    kinds = config.items(name)
    if len(kinds) != count or not all(isinstance(kind, str) for kind in kinds):
        raise InputError(f"{config.where}: {name} must hold a word for each of {count} layers; it has {len(kinds)}")
    return kinds


def heads(config: Config, kv: int = 0) -> tuple[int, int]:
    """Query heads and KV heads."""
    queries = config.count("num_attention_heads")
    groups = config.count("num_key_value_heads", kv or queries)
    if queries % groups:
        raise InputError(
            f"{config.where}: num_attention_heads {queries} is not a multiple of num_key_value_heads {groups}"
        )
    return queries, groups


def head_size(config: Config, hidden: int, queries: int, default: int = 0) -> int:
    """Width of one head."""
    size: int = config.count("head_dim", default or hidden // queries)
    if size < 1:
        raise InputError(f"{config.where}: hidden_size {hidden} is less than num_attention_heads {queries}")
    return size


def windows(config: Config, count: int, rule: str | int, width: int) -> list[float | None]:
    """For each layer the keys a query may see, or None for all."""
    if rule == "above" and not config.flag("use_sliding_window", False):
        return [None] * count
    field = "attention_chunk_size" if rule == "chunked" else "sliding_window"
    # A window that is null has been switched off; one that is absent has the family's default.
    window = config.count(field, None, least=0) if field in config.data else width
    kinds = per_layer(config, "layer_types", count)
    if kinds is not None:
        return [window or None if kind in WINDOWED else None for kind in kinds]
    if not window or rule == "none":
        return [None] * count
    if rule == "all":
        return [window] * count
    if rule == "above":
        first = config.count("max_window_layers", 28, least=0)
        return [window if layer >= first else None for layer in range(count)]
    if rule == "chunked" and config.items("no_rope_layers", []):
        local = config.items("no_rope_layers")
        if len(local) != count:
            raise InputError(f"{config.where}: no_rope_layers has {len(local)} entries for {count} layers")
        return [window if flag else None for flag in local]
    if isinstance(config.data.get("sliding_window_pattern"), str):  # "LLLG": local, local, local, global
        pattern = config.text("sliding_window_pattern") or "G"
        return [window if pattern[layer % len(pattern)] == "L" else None for layer in range(count)]
    if rule == "chunked":
        period = config.count("no_rope_layer_interval", 4)
    else:
        period = config.count(config.named("sliding_window_pattern", "global_attn_every_n_layers"), rule, least=0)
    full = 0 if period < 0 else period - 1
    return [window if not period or layer % abs(period) != full else None for layer in range(count)]


def architecture(config: Config) -> str:
    """The class a checkpoint names, or its model type."""
    names = config.data.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0][:100]
    return config.text("model_type", "")


def rotary_size(config: Config, size: int, share: float) -> float:
    """How much of a head is rotated."""
    share = config.number("partial_rotary_factor", share)
    if isinstance(config.data.get("rope_parameters"), dict):
        share = config.sub("rope_parameters").number("partial_rotary_factor", share)
    return float(int(size * min(max(share, 0.0), 1.0)))


def grouped_query(config: Config, hidden: int, family: Family) -> Attention:
    """The attention sublayer of a family, without its window."""
    queries, groups = heads(config, family.kv)
    size = head_size(config, hidden, queries, family.head)
    norm = family.qk_norm if answer(config, family.qk_norm_if) else ""
    weights = {"": 0, "head": 2 * size, "all": (queries + groups) * size}[norm]
    return parts.attention(
        hidden,
        queries,
        groups,
        size,
        bias=answer(config, family.qkv_bias),
        out_bias=answer(config, family.out_bias),
        rotary_size=rotary_size(config, size, family.rotary),
        qk_norm=bool(norm),
        gate=queries * size if family.gate else 0,
        vector_params=weights + (queries if family.sinks else 0),
    )


def decoder(config: Config, name: str, family: Family) -> ModelSpec:
    """A decoder whose layers are attention and a feed-forward network, dense or of experts."""
    hidden = config.count("hidden_size")
    count = layers(config)
    variants = [None] * count if family.variants is None else family.variants(config, count)
    sparse = [family.experts is not None] * count if family.sparse is None else family.sparse(config, count)
    routed = family.experts(config, hidden) if family.experts is not None and any(sparse) else None
    chunked = family.windows == "chunked"

    norms = hidden * (family.norms + (family.more_norms if answer(config, family.more_norms_if) else 0.0))

    def mixer(variant: Any) -> Attention:
        if family.mixer is None:
            return grouped_query(config, hidden, family)
        return family.mixer(config, hidden, variant)

    def layer(kind: tuple[float | None, bool, Any]) -> Block:
        window, has_experts, variant = kind
        attention = mixer(variant)
        if window is not None:
            attention = replace(attention, window=window, chunked=chunked)
        network: FeedForward | Experts
        if has_experts and routed is not None:
            network = routed
        else:
            network = parts.feed_forward(
                hidden,
                config.count(family.dense_width),
                gated=family.gated,
                bias=answer(config, family.mlp_bias),
                vector_params=family.dense_vectors,
            )
        return Block(1, hidden, (attention, network), vector_params=norms)

    seen = windows(config, count, family.windows, family.window)
    blocks = parts.stack(zip(seen, sparse, variants, strict=True), layer)
    if family.mtp:
        blocks += next_token_layers(config, hidden, layer((None, routed is not None, variants[0])))
    rotated = mixer(variants[0]).rotary_size
    return parts.decoder(
        name=name,
        architecture=architecture(config),
        source=config.where,
        hidden=hidden,
        vocab_size=config.count("vocab_size"),
        blocks=blocks,
        tied=config.flag("tie_word_embeddings", family.tied),
        head_bias=answer(config, family.head_bias),
        final_norm=family.final_norm * hidden,
        rotary=(rotated / 2,) if rotated else (),
        max_positions=config.count("max_position_embeddings", 0, least=0),
    )


def next_token_layers(config: Config, hidden: int, layer: Block) -> tuple[Block, ...]:
    """Multi-token-prediction layers: a decoder layer fed by a projection of the stream and the next token's embedding.

    Their norms of both inputs and of the output are counted with them; embedding and head are the model's own.
    """
    count = config.count(config.named("num_nextn_predict_layers", "num_mtp_layers"), 0, least=0)
    if not count:
        return ()
    joint = Linear("eh_proj", 2 * hidden, hidden, False, REPLICATED, "attention")
    return (replace(layer, count=count, stack="mtp", extra=(joint,), vector_params=layer.vector_params + 3 * hidden),)
