"""Decoders with multi-head latent attention (MLA), with or without a sparse indexer (DSA)."""

from __future__ import annotations

from functools import partial
from math import inf

from capacity.errors import InputError
from capacity.importers import parts
from capacity.importers.huggingface.experts import after_first, routed
from capacity.importers.huggingface.layers import Family, decoder, per_layer
from capacity.spec.model import REPLICATED, Linear

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.importers.huggingface.config import Config
    from capacity.spec.model import Attention


def latent(config: Config, hidden: int, indexer: bool | None, *, q_rank: int = 0) -> Attention:
    """The attention sublayer; `q_rank` where the config does not name it (null: a plain q_proj).

    indexer: whether this layer selects its keys itself (None: the family selects none).
    """
    heads = config.count("num_attention_heads")
    rank = config.count("q_lora_rank", 0) if "q_lora_rank" in config.data else q_rank
    rope = config.count("qk_rope_head_dim")
    index_heads = config.count("index_n_heads") if indexer else 0
    index_size = config.count("index_head_dim") if indexer else 0
    extra = (
        (
            Linear("indexer.wq_b", rank, index_heads * index_size, False, REPLICATED),
            Linear("indexer.wk", hidden, index_size, False, REPLICATED),
            Linear("indexer.weights_proj", hidden, index_heads, False, REPLICATED),
        )
        if indexer
        else ()
    )
    return parts.latent_attention(
        hidden,
        heads,
        kv_rank=config.count("kv_lora_rank"),
        nope_size=config.count("qk_nope_head_dim"),
        rope_size=rope,
        value_size=config.count("v_head_dim"),
        q_rank=rank,
        bias=config.flag("attention_bias", False),
        extra=extra,
        extra_vector_params=2 * index_size,  # a LayerNorm of the indexer's key
        selected=inf if indexer is None else config.count("index_topk"),
        indexer_heads=index_heads,
        indexer_size=index_size,
    )


def all_indexed(config: Config, count: int) -> list[bool]:
    """Every layer has an indexer."""
    del config
    return [True] * count


def own_indexer(config: Config, count: int) -> list[bool]:
    """For each layer, whether it has an indexer of its own or shares what the one before it selected."""
    kinds = per_layer(config, "indexer_types", count)
    pattern = config.data.get("index_topk_pattern")
    if kinds is None and isinstance(pattern, str):
        kinds = ["shared" if letter == "S" else "full" for letter in pattern]
        if len(kinds) != count:
            raise InputError(f"{config.where}: index_topk_pattern has {len(kinds)} letters for {count} layers")
    if kinds is not None:
        return [kind != "shared" for kind in kinds]
    step = config.count("index_topk_freq", 1)
    offset = config.count("index_skip_topk_offset", 2, least=0)
    return [max(layer - offset + 1, 0) % step == 0 for layer in range(count)]


SHARED = partial(routed, shared="n_shared_experts")

FAMILIES = {
    "deepseek_v2": Family(
        mlp_bias=("mlp_bias", False),
        mixer=partial(latent, q_rank=1536),
        experts=partial(SHARED, shared_count=2),
        sparse=after_first,
    ),
    "deepseek_v3": Family(
        mixer=partial(latent, q_rank=1536),
        experts=partial(SHARED, count=256, active=8, shared_count=1),
        sparse=partial(after_first, default=3),
        mtp=True,
    ),
    "deepseek_v32": Family(
        mixer=partial(latent, q_rank=1536),
        variants=all_indexed,
        experts=partial(SHARED, count=256, active=8, shared_count=1),
        sparse=partial(after_first, default=3),
        mtp=True,
    ),
    "glm_moe_dsa": Family(
        mixer=partial(latent, q_rank=2048),
        variants=own_indexer,
        experts=partial(SHARED, count=256, active=8, shared_count=1),
        sparse=partial(after_first, default=3),
        mtp=True,
    ),
    "glm4_moe_lite": Family(
        mixer=partial(latent, q_rank=768),
        experts=partial(SHARED, count=64, active=4, shared_count=1),
        sparse=partial(after_first, default=1),
        mtp=True,
    ),
}
FAMILIES["mistral4"] = Family(
    mixer=partial(latent, q_rank=1024),
    experts=partial(SHARED, count=128, active=4, shared_count=1),
    sparse=after_first,
)
FAMILIES["youtu"] = Family(mixer=partial(latent, q_rank=1536), tied=True)
FAMILIES["minicpm3"] = Family(mixer=partial(latent, q_rank=768), mlp_bias=("mlp_bias", False), tied=True)
FAMILIES["kimi_k2"] = FAMILIES["deepseek_v3"]

ADAPTERS = {kind: partial(decoder, family=family) for kind, family in FAMILIES.items()}
