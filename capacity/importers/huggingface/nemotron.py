"""NVIDIA's hybrids and searched models: Nemotron-H (Mamba-2, attention, networks or experts) and Nemotron-NAS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.errors import InputError, UnsupportedArchitectureError
from capacity.importers import parts
from capacity.importers.huggingface import mixers
from capacity.importers.huggingface.layers import layers
from capacity.spec.model import Block, Linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.importers.huggingface.config import Config
    from capacity.spec.model import ModelSpec, Sublayer

_KINDS = {
    "M": "mamba", "mamba": "mamba", "linear_attention": "mamba",
    "*": "attention", "attention": "attention", "full_attention": "attention",
    "E": "moe", "moe": "moe",
    "-": "mlp", "mlp": "mlp",
}  # fmt: skip


def _kinds(config: Config, names: tuple[str, ...], pattern: str) -> list[str]:
    """One kind of layer after the other, from a list or the older string of one letter a layer."""
    listed = config.named(*names)
    given: list[Any] = config.items(listed) if config.has(listed) else list(config.text(pattern, ""))
    parts.layer_count(len(given), config.where)
    kinds = [_KINDS.get(kind) if isinstance(kind, str) else None for kind in given]
    if None in kinds:
        raise UnsupportedArchitectureError(
            f"{config.where}: a layer of kind {str(given[kinds.index(None)])[:40]!r}; known are mamba, attention, "
            "moe and mlp"
        )
    return [kind for kind in kinds if kind]


def hybrid(config: Config, name: str) -> ModelSpec:
    """Nemotron-H: every layer is one sublayer with its norm."""
    hidden = config.count("hidden_size")
    latent = config.count("moe_latent_size", 0, least=0)

    def attention() -> Sublayer:
        heads = config.count("num_attention_heads", 32)
        size = config.count(config.named("head_dim", "attention_head_dim"), 128)
        groups = config.count("num_key_value_heads", 8)
        mixers.whole(config, heads, groups, "num_attention_heads by num_key_value_heads")
        # The published class gives these maps no bias, whatever attention_bias says.
        return parts.attention(hidden, heads, groups, size, rotary_size=0.0)

    def mamba() -> Sublayer:
        return mixers.mamba2(
            config,
            hidden,
            heads=config.count(config.named("mamba_num_heads"), 128),
            head_size=config.count("mamba_head_dim", 64),
            state=config.count("ssm_state_size", 128),
            groups=config.count(config.named("n_groups", "mamba_n_groups"), 8),
            kernel=config.count(config.named("conv_kernel", "mamba_d_conv"), 4),
            chunk=config.count(config.named("chunk_size", "mamba_chunk_size"), 128),
            bias=config.flag("use_bias", False),
            conv_bias=config.flag(config.named("use_conv_bias", "mamba_conv_bias"), True),
        )

    def experts() -> Sublayer:
        return parts.experts(
            hidden,
            config.count("moe_intermediate_size"),
            config.count("n_routed_experts"),
            config.count("num_experts_per_tok"),
            gated=False,
            bias=False,
            shared_width=config.count("moe_shared_expert_intermediate_size"),
            shared_bias=config.flag("mlp_bias", False),
            latent=latent or None,
        )

    def network() -> Sublayer:
        bias = config.flag("mlp_bias", False)
        return parts.feed_forward(hidden, config.count("intermediate_size"), gated=False, bias=bias)

    build = {"attention": attention, "mamba": mamba, "moe": experts, "mlp": network}

    def layer(kind: str) -> Block:
        # The routed experts of a latent mixture read and write a narrower stream.
        around: tuple[Linear, ...] = ()
        if kind == "moe" and latent:
            bias = config.flag("mlp_bias", False)
            around = (Linear("latent_down", hidden, latent, bias), Linear("latent_up", latent, hidden, bias))
        return Block(1, hidden, (build[kind](),), vector_params=hidden, extra=around)

    kinds = _kinds(config, ("layers_block_type", "layer_types"), "hybrid_override_pattern")
    if not kinds:
        raise InputError(f"{config.where}: neither layers_block_type nor hybrid_override_pattern names the layers")
    blocks = parts.stack(kinds, layer)
    ahead = _kinds(config, ("mtp_layers_block_type",), "mtp_hybrid_override_pattern") or ["attention", "moe"]
    times = config.count("num_nextn_predict_layers", 0, least=0)
    if times:
        blocks += mixers.next_token(hidden, tuple(layer(kind) for kind in ahead), times)
    return mixers.assemble(config, name, hidden, blocks)


def _facts(config: Config, index: int, block: Any, part: str) -> dict[str, Any]:
    facts = block.get(part) if isinstance(block, dict) else None
    if not isinstance(facts, dict):
        raise InputError(f"{config.where}: block_configs[{index}] has no {part} object")
    odd = [key for key in ("replace_with_linear", "sparsify", "window_length", "unshifted_sink") if facts.get(key)]
    if odd:
        raise UnsupportedArchitectureError(
            f"{config.where}: block_configs[{index}].{part} uses {odd[0]}, not built here"
        )
    return facts


def searched(config: Config, name: str) -> ModelSpec:
    """Nemotron-NAS (DeciLM): a Llama whose layers were searched, each with its own KV heads and network or neither."""
    hidden = config.count("hidden_size")
    heads = config.count("num_attention_heads")
    size = config.count("head_dim", hidden // heads)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    blocks = config.items("block_configs")
    if len(blocks) != layers(config):
        raise InputError(f"{config.where}: block_configs has {len(blocks)} entries for {layers(config)} layers")

    def kind(index: int, block: Any) -> tuple[int, int]:
        """KV heads and inner width of a layer, 0 for a sublayer that was dropped."""
        attention, network = (_facts(config, index, block, part) for part in ("attention", "ffn"))
        groups = width = 0
        if not attention.get("no_op"):
            share = attention.get("n_heads_in_group")
            if not isinstance(share, int) or not 1 <= share <= heads or heads % share:
                raise InputError(
                    f"{config.where}: block_configs[{index}].attention.n_heads_in_group is {str(share)[:40]}; "
                    f"it must divide num_attention_heads {heads}"
                )
            groups = heads // share
        if not network.get("no_op"):
            ratio = network.get("ffn_mult")
            if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < 1000:
                raise InputError(f"{config.where}: block_configs[{index}].ffn.ffn_mult is {str(ratio)[:40]}")
            # Two thirds of ratio x hidden, filled up to a multiple of 256.
            width = -(-int(2 * ratio * hidden / 3) // 256) * 256
        return groups, width

    def layer(kind: tuple[int, int]) -> Block:
        groups, width = kind
        sublayers: list[Sublayer] = []
        if groups:
            sublayers.append(parts.attention(hidden, heads, groups, size, bias=bias))
        if width:
            sublayers.append(parts.feed_forward(hidden, width, bias=mlp_bias))
        return Block(1, hidden, tuple(sublayers), vector_params=hidden * len(sublayers))

    stack = parts.stack([kind(index, block) for index, block in enumerate(blocks)], layer)
    return mixers.assemble(config, name, hidden, stack, rotary=(size / 2,))


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    "nemotron-nas": searched,
    "nemotron_h": hybrid,
}
