"""Decoders with grouped-query attention and a mixture of experts in some or all layers."""

from __future__ import annotations

from functools import partial

from capacity.errors import InputError
from capacity.importers import parts
from capacity.importers.huggingface.config import Config
from capacity.importers.huggingface.layers import Family, decoder, per_layer
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.spec.model import Experts, ModelSpec

BIAS = ("attention_bias", False)
COUNT = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")
WIDTH = ("moe_intermediate_size", "intermediate_size")


def routed(
    config: Config,
    hidden: float,
    *,
    count: int = 0,
    active: int = 0,
    width: tuple[str, ...] = WIDTH,
    bias: bool = False,
    router_bias: bool = False,
    shared: str = "",
    shared_count: int | None = None,
    shared_gate: bool = False,
    correction: bool = False,
) -> Experts:
    """The experts of a layer.

    count, active: where the config gives none. width: fields that name an expert's inner width.
    shared: "" for no shared expert; "shared_expert_intermediate_size" and the like for a field that gives its width;
    "n_shared_experts" and the like, with shared_count, for a field that counts shared experts of an expert's width.
    correction: each expert has a parameter that corrects its score.
    """
    size = config.count(config.named(*width))
    total = config.count(config.named(*COUNT), *((count,) if count else ()))
    chosen = config.count(config.named(*ACTIVE), *((active,) if active else ()))
    if chosen > total:
        raise InputError(f"{config.where}: {chosen} experts per token, but there are {total}")
    shared_width = 0
    if shared:
        shared_width = (
            config.count(shared, 0, least=0)
            if shared_count is None
            else config.count(shared, shared_count, least=0) * size
        )
    experts = parts.experts(
        hidden, size, total, chosen, bias=bias, router_bias=router_bias, shared_width=shared_width,
        shared_gate=shared_gate, vector_params=total if correction else 0,
    )  # fmt: skip
    # Routing limited to some groups of experts, which training lays on a node each.
    groups, reached = config.count("n_group", 1, least=0), config.count("topk_group", 1, least=0)
    return replace(experts, reach=float(reached)) if groups > 1 and 0 < reached < groups else experts


def after_first(config: Config, layers: int, default: int = 0) -> list[bool]:
    """Dense layers first, experts in the rest, or as `mlp_layer_types` says."""
    kinds = per_layer(config, "mlp_layer_types", layers)
    if kinds is not None:
        return [kind == "sparse" for kind in kinds]
    first = config.count(config.named("first_k_dense_replace", "num_dense_layers"), default, least=0)
    if isinstance(config.data.get("moe_layer_freq"), list):
        flags = config.items("moe_layer_freq")
        if len(flags) != layers:
            raise InputError(f"{config.where}: moe_layer_freq has {len(flags)} entries for {layers} layers")
        return [bool(flag) for flag in flags]
    step = config.count("moe_layer_freq", 1)
    return [layer >= first and layer % step == 0 for layer in range(layers)]


def every_step(config: Config, layers: int) -> list[bool]:
    """Experts in every `decoder_sparse_step`-th layer but those listed as dense."""
    dense = [layer for layer in config.items("mlp_only_layers", []) if isinstance(layer, int)]
    step = config.count("decoder_sparse_step", 1)
    return [layer not in dense and (layer + 1) % step == 0 for layer in range(layers)]


def interleaved(config: Config, layers: int) -> list[bool]:
    """Experts in the layers listed, or in every `interleave_moe_layer_step`-th."""
    if config.has("moe_layers"):
        listed = [layer for layer in config.items("moe_layers") if isinstance(layer, int)]
        return [layer in listed for layer in range(layers)]
    step = config.count("interleave_moe_layer_step", 1)
    return [(layer + 1) % step == 0 for layer in range(layers)]


def between(config: Config, layers: int) -> list[bool]:
    """Experts in every `moe_layer_interval`-th layer from the start index to the end index (-1: the last)."""
    first = config.count("moe_layer_start_index", 1, least=0)
    last = config.count("moe_layer_end_index", -1, least=-1)
    step = config.count("moe_layer_interval", 1)
    return [first <= layer <= (layers if last < 0 else last) and (layer + 1) % step == 0 for layer in range(layers)]


FAMILIES = {
    "afmoe": Family(
        norms=4,
        qkv_bias=BIAS,
        out_bias=BIAS,
        qk_norm="head",
        head=128,
        gate=True,
        windows=4,
        window=1024,
        sparse=partial(after_first, default=1),
        experts=partial(
            routed, count=64, active=6, shared="num_shared_experts", shared_count=2, correction=True
        ),
    ),
    "aria_text": Family(
        qkv_bias=BIAS,
        out_bias=BIAS,
        experts=partial(
            routed, count=8, active=2, width=WIDTH[1:], shared="moe_num_shared_experts", shared_count=2
        ),
    ),
    "dots1": Family(
        qkv_bias=BIAS, out_bias=BIAS, qk_norm="head", sparse=after_first,
        experts=partial(routed, shared="n_shared_experts", shared_count=1), windows="above",
    ),
    "ernie4_5_moe": Family(
        qkv_bias=("use_bias", False), out_bias=("use_bias", False), mlp_bias=("use_bias", False), kv=4, tied=True,
        sparse=between,
        experts=partial(
            routed, count=64, active=6, shared="moe_num_shared_experts", shared_count=2, correction=True
        ),
    ),
    "exaone_moe": Family(
        qk_norm="head",
        windows=4,
        sparse=partial(after_first, default=1),
        experts=partial(routed, count=64, active=8, shared="num_shared_experts", shared_count=1),
    ),
    "flex_olmo": Family(
        qkv_bias=BIAS, out_bias=BIAS, qk_norm="all", experts=partial(routed, count=7, active=5, width=WIDTH[1:])
    ),
    "glm4_moe": Family(
        qkv_bias=BIAS, qk_norm="head", qk_norm_if=("use_qk_norm", False), kv=8, rotary=0.5, mtp=True,
        sparse=partial(after_first, default=1),
        experts=partial(routed, count=128, active=8, shared="n_shared_experts", shared_count=1),
    ),
    "gpt_oss": Family(
        qkv_bias=("attention_bias", True), out_bias=("attention_bias", True), head=64, kv=8, sinks=True,
        windows=2, window=128,
        experts=partial(routed, count=128, active=4, width=WIDTH[1:], bias=True, router_bias=True),
    ),
    "granitemoe": Family(qkv_bias=BIAS, out_bias=BIAS, experts=partial(routed, count=8, active=2, width=WIDTH[1:])),
    "granitemoeshared": Family(
        qkv_bias=BIAS, out_bias=BIAS,
        experts=partial(routed, count=8, active=2, width=WIDTH[1:], shared="shared_intermediate_size"),
    ),
    "granitemoe_swa": Family(
        qkv_bias=BIAS,
        out_bias=BIAS,
        sinks=True,
        windows=-4,
        window=128,
        experts=partial(routed, count=8, active=2, width=WIDTH[1:], shared="shared_intermediate_size"),
    ),
    "hunyuan_v1_moe": Family(
        qkv_bias=BIAS, out_bias=BIAS, qk_norm="head",
        experts=partial(routed, count=1, active=1, width=WIDTH[1:], shared="intermediate_size"),
    ),
    "hy_v3": Family(
        qkv_bias=BIAS,
        out_bias=BIAS,
        mlp_bias=("mlp_bias", False),
        qk_norm="head",
        head=128,
        kv=8,
        sparse=partial(after_first, default=1),
        experts=partial(routed, count=192, active=8, shared="num_shared_experts", shared_count=1),
    ),
    "llama4_text": Family(
        qkv_bias=BIAS, out_bias=BIAS, head=128, kv=8, sparse=interleaved, dense_width="intermediate_size_mlp",
        experts=partial(routed, count=16, active=1, width=WIDTH[1:], shared="intermediate_size"),
        windows="chunked", window=8192,
    ),
    "mellum": Family(
        qkv_bias=BIAS,
        out_bias=BIAS,
        qk_norm="head",
        head=128,
        kv=4,
        window=1024,
        sparse=after_first,
        experts=partial(routed, count=64, active=8),
    ),
    "mixtral": Family(kv=8, windows="all", window=0, experts=partial(routed, count=8, active=2, width=WIDTH[1:])),
    "olmoe": Family(
        qkv_bias=BIAS, out_bias=BIAS, qk_norm="all", experts=partial(routed, count=64, active=8, width=WIDTH[1:])
    ),
    "phimoe": Family(
        norms=4, final_norm=2, qkv_bias=BIAS, out_bias=BIAS, head_bias=("lm_head_bias", False), kv=8,
        windows="all", window=0, experts=partial(routed, count=16, active=2, width=WIDTH[1:]),
    ),
    "qwen2_moe": Family(
        qkv_bias=("qkv_bias", True), kv=16, windows="above", sparse=every_step,
        experts=partial(routed, count=60, active=4, shared="shared_expert_intermediate_size", shared_gate=True),
    ),
    "qwen3_moe": Family(
        qkv_bias=BIAS, out_bias=BIAS, qk_norm="head", kv=4, sparse=every_step,
        experts=partial(routed, count=128, active=8),
    ),
    "qwen3_vl_moe_text": Family(
        qkv_bias=BIAS, out_bias=BIAS, qk_norm="head", kv=16, tied=True, sparse=every_step,
        experts=partial(routed, count=60, active=4),
    ),
    "solar_open": Family(
        qkv_bias=BIAS, head=128, kv=8,
        experts=partial(routed, shared="n_shared_experts", shared_count=1),
    ),
}  # fmt: skip

DBRX = Family(kv=1, experts=partial(routed, count=4, active=1, width=WIDTH[1:]))


def dbrx(config: Config, name: str) -> ModelSpec:
    """DBRX, whose config nests and names its fields in its own way."""
    attention, network = config.sub("attn_config", {}), config.sub("ffn_config", {})
    fields = {
        **config.data,
        "hidden_size": config.count(config.named("d_model", "hidden_size"), 2048),
        "num_attention_heads": config.count(config.named("n_heads", "num_attention_heads"), 16),
        "num_hidden_layers": config.count(config.named("n_layers", "num_hidden_layers"), 24),
        "max_position_embeddings": config.count(config.named("max_seq_len", "max_position_embeddings"), 2048),
        "num_key_value_heads": attention.count("kv_n_heads", 1),
        "intermediate_size": network.count("ffn_hidden_size", 3584),
        "num_experts": network.count("moe_num_experts", 4),
        "num_experts_per_tok": network.count("moe_top_k", 1),
    }
    return decoder(Config(fields, config.where), name, DBRX)


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    **{kind: partial(decoder, family=family) for kind, family in FAMILIES.items()},
    "dbrx": dbrx,
}
