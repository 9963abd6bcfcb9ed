"""Decoders of (gated) delta nets and softmax attention: Qwen3-Next and Qwen3.5, OLMo Hybrid, Kimi Linear and Kimi K3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.errors import UnsupportedArchitectureError
from capacity.importers import parts
from capacity.importers.huggingface import mixers, towers
from capacity.importers.huggingface.config import Config
from capacity.importers.huggingface.layers import NO_VISION, head_size, heads, layers, per_layer, rotary_size
from capacity.record import replace
from capacity.spec.model import COLUMN, Block, Linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.spec.model import Attention, Experts, FeedForward, ModelSpec, Recurrent


def _qwen_kinds(config: Config, count: int) -> list[str]:
    kinds = per_layer(config, "layer_types", count)
    if kinds is None:
        interval = config.count("full_attention_interval", 4)
        kinds = ["full_attention" if (layer + 1) % interval == 0 else "linear_attention" for layer in range(count)]
    return kinds


def _qwen_attention(config: Config, hidden: int) -> Attention:
    """Grouped-query attention with norms on queries and keys and a gate as wide as its output."""
    if not config.flag("attn_output_gate", True):
        raise UnsupportedArchitectureError(f"{config.where}: attn_output_gate is false; the published class gates")
    queries, groups = heads(config, 2)
    size = head_size(config, hidden, queries, 256)
    bias = config.flag("attention_bias", False)
    attention = parts.attention(
        hidden, queries, groups, size,
        bias=bias, gate=queries * size, qk_norm=True, vector_params=2 * size,
        rotary_size=rotary_size(config, size, 0.25),
    )  # fmt: skip
    gate = [replace(linear, bias=bias) if linear.name == "gate_proj" else linear for linear in attention.projections]
    return replace(attention, projections=tuple(gate))


def _qwen_experts(config: Config, hidden: int) -> Experts:
    return parts.experts(
        hidden,
        config.count("moe_intermediate_size", 512),
        config.count("num_experts"),
        config.count("num_experts_per_tok"),
        shared_width=config.count("shared_expert_intermediate_size", 512),
        shared_gate=True,
    )


def qwen(config: Config, name: str) -> ModelSpec:
    """Qwen3-Next and Qwen3.5: three gated delta nets to one gated attention, dense or with experts."""
    kind = config.text("model_type")
    vision = config.sub("vision_config") if config.has("vision_config") and config.has("text_config") else None
    config = mixers.language_model(config, "tie_word_embeddings")
    hidden = config.count("hidden_size")
    count = layers(config)
    linear = mixers.gated_delta(
        config,
        hidden,
        key_heads=config.count("linear_num_key_heads", 16),
        value_heads=config.count("linear_num_value_heads", 32),
        key_size=config.count("linear_key_head_dim", 128),
        value_size=config.count("linear_value_head_dim", 128),
        kernel=config.count("linear_conv_kernel_dim", 4),
    )
    attention = _qwen_attention(config, hidden)

    def network(sparse: bool) -> FeedForward | Experts:
        if sparse:
            return _qwen_experts(config, hidden)
        return parts.feed_forward(hidden, config.count("intermediate_size", 5632))

    def layer(kind: tuple[str, bool]) -> Block:
        mixer: Attention | Recurrent = linear if kind[0] == "linear_attention" else attention
        return Block(1, hidden, (mixer, network(kind[1])), vector_params=2 * hidden)

    if kind == "qwen3_next":
        step, dense = config.count("decoder_sparse_step", 1), config.items("mlp_only_layers", [])
        has_experts = config.count("num_experts", 512, least=0) > 0
        sparse = [has_experts and i not in dense and (i + 1) % step == 0 for i in range(count)]
    else:
        sparse = ["moe" in kind] * count
    blocks = parts.stack(zip(_qwen_kinds(config, count), sparse, strict=True), layer)
    heads_ahead = config.count("mtp_num_hidden_layers", 0, least=0)
    blocks += mixers.next_token(hidden, (layer(("full_attention", sparse[-1])),), heads_ahead)
    model = mixers.assemble(config, name, hidden, blocks, rotary=(attention.rotary_size / 2,))
    return model if vision is None else _seeing(model, vision)


def _seeing(model: ModelSpec, vision: Config) -> ModelSpec:
    """The language model with Qwen3-VL's tower before it, without that tower's side outputs."""
    tower = towers.qwen(Config({**vision.data, "deepstack_visual_indexes": []}, vision.where), version="3")
    return towers.before(tower, model)


def _kimi_kinds(config: Config, count: int) -> list[str]:
    kinds = per_layer(config, "layer_types", count)
    if kinds is not None:
        return kinds
    if not config.has("linear_attn_config"):
        return ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(count)]
    # The checkpoint's own lists count layers from 1.
    full = config.sub("linear_attn_config").items("full_attn_layers")
    return ["full_attention" if i + 1 in full else "linear_attention" for i in range(count)]


def _kimi_attention(config: Config, hidden: int) -> Attention:
    queries = config.count("num_attention_heads")
    attention = parts.latent_attention(
        hidden,
        queries,
        kv_rank=config.count("kv_lora_rank", 512),
        nope_size=config.count("qk_nope_head_dim", 128),
        rope_size=config.count("qk_rope_head_dim", 64, least=0),
        value_size=config.count("v_head_dim", 128),
        q_rank=config.count("q_lora_rank", 0, least=0),
        bias=config.flag("attention_bias", False),
    )
    if config.flag("mla_use_output_gate", False):
        gate = Linear("g_proj", hidden, queries * attention.value_size, False, COLUMN)
        attention = replace(attention, projections=(*attention.projections, gate))
    return replace(attention, rotary_size=0.0)


def kimi(config: Config, name: str) -> ModelSpec:
    """Kimi Linear and Kimi K3: three Kimi delta attentions to one latent attention without positions.

    K3 besides: an output gate on latent attention, routed experts in a narrower latent stream, and attention
    residuals (before each sublayer and at the end a learnt query weighs the streams of earlier layers).
    """
    wrapped = config.has("text_config")
    config = mixers.language_model(config)
    linear = config.sub("linear_attn_config", {})
    hidden = config.count("hidden_size")
    count = layers(config)
    delta = mixers.kimi_delta(
        hidden,
        heads=linear.count("num_heads", config.count("linear_num_heads", 32)),
        size=linear.count("head_dim", config.count("linear_head_dim", 128)),
        kernel=linear.count("short_conv_kernel_size", config.count("linear_conv_kernel_dim", 4)),
        full_rank_gate=linear.flag("use_full_rank_gate", False),
    )
    attention = _kimi_attention(config, hidden)
    width = config.count("moe_intermediate_size")
    latent = config.count("routed_expert_hidden_size", 0, least=0)
    routed = parts.experts(
        hidden,
        width,
        config.count(config.named("num_experts", "num_local_experts")),
        config.count(config.named("num_experts_per_token", "num_experts_per_tok")),
        shared_width=width * config.count(config.named("num_shared_experts", "n_shared_experts"), 1, least=0),
        latent=latent or None,
        vector_params=latent if config.flag("latent_moe_use_norm", False) else 0,
    )
    around = (Linear("latent_down", hidden, latent), Linear("latent_up", latent, hidden)) if latent else ()
    residuals = config.count("attn_res_block_size", 0, least=0) > 0
    weighing = (Linear("attention_residual", hidden, 1), Linear("ffn_residual", hidden, 1)) if residuals else ()

    def layer(kind: tuple[str, bool]) -> Block:
        mixer: Attention | Recurrent = delta if kind[0] == "linear_attention" else attention
        network = routed if kind[1] else parts.feed_forward(hidden, config.count("intermediate_size"))
        norms = (4 if residuals else 2) * hidden
        return Block(1, hidden, (mixer, network), vector_params=norms, extra=((*around,) if kind[1] else ()) + weighing)

    types = per_layer(config, "mlp_layer_types", count)
    dense, period = config.count("first_k_dense_replace", 1, least=0), config.count("moe_layer_freq", 1)
    sparse = [kind == "sparse" for kind in types] if types else [i >= dense and i % period == 0 for i in range(count)]
    blocks = parts.stack(zip(_kimi_kinds(config, count), sparse, strict=True), layer)
    if residuals:
        blocks += (Block(1, hidden, (), vector_params=hidden, extra=(Linear("output_residual", hidden, 1),)),)
    positions = config.count(config.named("model_max_length", "max_position_embeddings"), 0, least=0)
    notes = ("the sums over earlier layers' streams of attention residuals are not counted",) if residuals else ()
    return mixers.assemble(
        config, name, hidden, blocks, max_positions=positions, notes=(*notes, *((NO_VISION,) if wrapped else ()))
    )


def olmo(config: Config, name: str) -> ModelSpec:
    """OLMo Hybrid: three gated delta nets to one attention with a norm over all heads."""
    hidden = config.count("hidden_size")
    count = layers(config)
    queries, groups = heads(config)
    size = head_size(config, hidden, queries)
    keys = config.count("linear_num_key_heads", queries)
    key_size = config.count("linear_key_head_dim", max(3 * hidden // (4 * keys), 1))
    linear = mixers.gated_delta(
        config,
        hidden,
        key_heads=keys,
        value_heads=config.count("linear_num_value_heads", queries),
        key_size=key_size,
        value_size=config.count("linear_value_head_dim", 2 * key_size),
        kernel=config.count("linear_conv_kernel_dim", 4),
    )
    attention = parts.attention(
        hidden, queries, groups, size,
        bias=config.flag("attention_bias", False), qk_norm=True, vector_params=(queries + groups) * size,
        rotary_size=size if config.has("rope_parameters") else 0.0,
    )  # fmt: skip
    network = parts.feed_forward(hidden, config.count("intermediate_size"))

    def layer(kind: str) -> Block:
        mixer: Attention | Recurrent = linear if kind == "linear_attention" else attention
        return Block(1, hidden, (mixer, network), vector_params=2 * hidden)

    kinds = per_layer(config, "layer_types", count)
    if kinds is None:
        kinds = ["full_attention" if i % 4 == 3 or i == count - 1 < 3 else "linear_attention" for i in range(count)]
    return mixers.assemble(config, name, hidden, parts.stack(kinds, layer))


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    "kimi_k3": kimi,
    "kimi_linear": kimi,
    "olmo_hybrid": olmo,
    "qwen3_5": qwen,
    "qwen3_5_moe": qwen,
    "qwen3_5_moe_text": qwen,
    "qwen3_5_text": qwen,
    "qwen3_next": qwen,
}
