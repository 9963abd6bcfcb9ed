"""Decoders of 2018 to 2023: learnt, sinusoidal or ALiBi positions, layer norms with biases, fused projections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.errors import UnsupportedArchitectureError
from capacity.importers import parts
from capacity.importers.huggingface.common import DECODER_TASKS, divide, layers_apart, task, with_head
from capacity.importers.huggingface.layers import architecture, rotary_size
from capacity.spec.model import COLUMN, REPLICATED, Block, Embedding, Linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.importers.huggingface.config import Config
    from capacity.spec.model import ModelSpec


def _decoder(
    config: Config,
    name: str,
    *,
    hidden: int,
    layers: int,
    heads: int,
    width: int,
    kv_heads: int | None = None,
    qkv_bias: bool = True,
    out_bias: bool = True,
    mlp_bias: bool = True,
    norms: float = 4.0,
    final_norm: float = 2.0,
    head_norm: float = 0.0,
    positions: int = 0,
    max_positions: int = 0,
    rotary: float = 0.0,
    tied: bool = True,
    head_bias: bool = False,
    windows: tuple[float | None, ...] = (),
    embedding_width: int | None = None,
) -> ModelSpec:
    """Equal layers of attention and a two-matrix network.

    norms: norm weights of a layer and final_norm of the model (embedding norms included), in multiples of the
    hidden size; head_norm: norm weights inside the attention of a layer. positions: rows of a learnt position
    table (0: none). rotary: rotated width of a head. windows: one per layer where some are limited.
    embedding_width: of the token table where it differs, with projections in and out.
    """
    size = divide(config, hidden, heads)
    layers = parts.layer_count(layers, config.where)

    def layer(window: float | None) -> Block:
        mixer = parts.attention(
            hidden,
            heads,
            heads if kv_heads is None else kv_heads,
            size,
            bias=qkv_bias,
            out_bias=out_bias,
            window=window,
            rotary_size=rotary,
            vector_params=head_norm,
            qk_norm=head_norm > 0,
        )
        network = parts.feed_forward(hidden, width, gated=False, bias=mlp_bias)
        return Block(1, hidden, (mixer, network), vector_params=norms * hidden)

    blocks = parts.stack(windows or (None,) * layers, layer)
    table = () if not positions else (Embedding("positions", positions, hidden),)
    vocab = config.count("vocab_size")
    narrow = embedding_width or hidden
    if narrow != hidden:
        into = Linear("project_in", narrow, hidden, False, REPLICATED, "head")
        out = Linear("project_out", hidden, narrow, False, REPLICATED, "head")
        blocks = (Block(1, hidden, (), extra=(into,)), *blocks, Block(1, hidden, (), extra=(out,)))
    tied = config.flag("tie_word_embeddings", tied)
    spec = parts.decoder(
        name=name,
        architecture=architecture(config),
        source=config.where,
        hidden=hidden,
        vocab_size=vocab,
        blocks=blocks,
        tied=tied,
        final_norm=final_norm * hidden,
        head_bias=head_bias,
        embeddings=table,
        embedding_width=narrow,
        rotary=(rotary / 2,) if rotary else (),
        max_positions=max_positions or positions,
    )
    if narrow != hidden:
        from capacity.record import replace

        spec = replace(spec, head=(Linear("lm_head", narrow, vocab, head_bias, COLUMN, "head", tied),))
    return layers_apart(with_head(spec, config, task(config, DECODER_TASKS, "ForCausalLM")))


def _count(config: Config, *names: str, default: int | None = None, least: int = 1) -> int:
    """A number that configs of several years name differently."""
    name = config.named(*names)
    number: int = config.count(name, least=least) if default is None else config.count(name, default, least=least)
    return number


def _no_cross_attention(config: Config) -> None:
    if config.flag("add_cross_attention", False):
        raise UnsupportedArchitectureError(
            f"{config.where}: add_cross_attention is true; a decoder of an encoder-decoder pair cannot be read alone"
        )


def _gpt2(config: Config, name: str) -> ModelSpec:
    _no_cross_attention(config)
    hidden = _count(config, "n_embd", "hidden_size")
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=_count(config, "n_layer", "num_hidden_layers"),
        heads=_count(config, "n_head", "num_attention_heads"),
        width=_count(config, "n_inner", default=4 * hidden),
        positions=_count(config, "n_positions", "max_position_embeddings", default=1024),
    )


def _openai_gpt(config: Config, name: str) -> ModelSpec:
    hidden = _count(config, "n_embd", "hidden_size")
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=_count(config, "n_layer", "num_hidden_layers"),
        heads=_count(config, "n_head", "num_attention_heads"),
        width=4 * hidden,
        positions=_count(config, "n_positions", "max_position_embeddings", default=512),
        final_norm=0,
    )


def _gpt_bigcode(config: Config, name: str) -> ModelSpec:
    _no_cross_attention(config)
    hidden = _count(config, "n_embd", "hidden_size")
    heads = _count(config, "n_head", "num_attention_heads")
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=_count(config, "n_layer", "num_hidden_layers"),
        heads=heads,
        kv_heads=1 if config.flag("multi_query", True) else heads,
        width=_count(config, "n_inner", default=4 * hidden),
        positions=_count(config, "n_positions", "max_position_embeddings", default=1024),
    )


def _gpt_neo(config: Config, name: str) -> ModelSpec:
    hidden = config.count("hidden_size")
    layers = _count(config, "num_layers", "num_hidden_layers")
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=layers,
        heads=_count(config, "num_heads", "num_attention_heads"),
        width=config.count("intermediate_size", 4 * hidden),
        qkv_bias=False,
        positions=config.count("max_position_embeddings", 2048),
        windows=_gpt_neo_windows(config, parts.layer_count(layers, config.where)),
    )


def _gpt_neo_windows(config: Config, layers: int) -> tuple[float | None, ...]:
    """Every second layer sees a window; the config says so as [[["global", "local"], 12]]."""
    kinds: list[object] = []
    for group in config.items("attention_types", [[["global", "local"], layers // 2]]):
        pattern, repeats = group if isinstance(group, (list, tuple)) and len(group) == 2 else ((), 0)
        if isinstance(pattern, (list, tuple)) and isinstance(repeats, int) and len(pattern) * repeats <= layers:
            kinds += list(pattern) * repeats
    if len(kinds) != layers:
        shown = str(config.data.get("attention_types"))[:60]
        raise UnsupportedArchitectureError(f"{config.where}: attention_types {shown} does not name {layers} layers")
    window = config.count("window_size", 256)
    return tuple(window if kind == "local" else None for kind in kinds)


def _gptj(config: Config, name: str) -> ModelSpec:
    hidden = _count(config, "n_embd", "hidden_size")
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=_count(config, "n_layer", "num_hidden_layers"),
        heads=_count(config, "n_head", "num_attention_heads"),
        width=_count(config, "n_inner", default=4 * hidden),
        qkv_bias=False,
        out_bias=False,
        norms=2,
        max_positions=_count(config, "n_positions", "max_position_embeddings", default=2048),
        rotary=config.count("rotary_dim", 64),
        tied=False,
        head_bias=True,
    )


def _gpt_neox(config: Config, name: str) -> ModelSpec:
    hidden = config.count("hidden_size")
    heads = config.count("num_attention_heads")
    bias = config.flag("attention_bias", True)
    share = config.number("rotary_pct", 0.25)
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=config.count("num_hidden_layers"),
        heads=heads,
        width=config.count("intermediate_size", 4 * hidden),
        qkv_bias=bias,
        out_bias=bias,
        max_positions=config.count("max_position_embeddings", 2048),
        rotary=rotary_size(config, divide(config, hidden, heads), share),
        tied=False,
    )


def _opt(config: Config, name: str) -> ModelSpec:
    hidden = config.count("hidden_size")
    bias = config.flag("enable_bias", True)
    before = config.flag("do_layer_norm_before", True)
    weights = 2 if config.flag("layer_norm_elementwise_affine", True) else 0
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=config.count("num_hidden_layers"),
        heads=config.count("num_attention_heads"),
        width=config.count("ffn_dim"),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        norms=2 * weights,
        final_norm=weights if before and not config.flag("_remove_final_layer_norm", False) else 0,
        # The first two rows of the position table are never read: an offset kept from the original code.
        positions=config.count("max_position_embeddings", 2048) + 2,
        embedding_width=config.count("word_embed_proj_dim", hidden),
    )


def _bloom(config: Config, name: str) -> ModelSpec:
    hidden = _count(config, "n_embed", "hidden_size")
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=_count(config, "n_layer", "num_hidden_layers"),
        heads=_count(config, "n_head", "num_attention_heads"),
        width=4 * hidden,
        final_norm=4,
        max_positions=config.count("seq_length", 2048),
    )


def _falcon(config: Config, name: str) -> ModelSpec:
    hidden = _count(config, "n_embed", "hidden_size")
    heads = _count(config, "num_attention_heads", "n_head")
    bias = config.flag("bias", False)
    new = config.flag("new_decoder_architecture", False)
    if new:
        kv_heads = _count(config, "num_kv_heads", "n_head_kv", default=heads)
    else:
        kv_heads = 1 if config.flag("multi_query", True) else heads
    parallel = config.flag("parallel_attn", True)
    inputs_normed = config.count("num_ln_in_parallel_attn", 2 if new else 1)
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=_count(config, "num_hidden_layers", "n_layer"),
        heads=heads,
        kv_heads=kv_heads,
        width=config.count("ffn_hidden_size", 4 * hidden),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        norms=4 if not parallel or inputs_normed == 2 else 2,
        max_positions=config.count("max_position_embeddings", 2048),
        rotary=0 if config.flag("alibi", False) else divide(config, hidden, heads),
    )


def _mpt(config: Config, name: str) -> ModelSpec:
    hidden = _count(config, "d_model", "hidden_size")
    kind = config.sub("attn_config", {}).text("attn_type", "multihead_attention")
    if kind != "multihead_attention":
        raise UnsupportedArchitectureError(
            f"{config.where}: attn_type {kind[:40]!r}; only multihead_attention is known"
        )
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=_count(config, "n_layers", "num_hidden_layers"),
        heads=_count(config, "n_heads", "num_attention_heads"),
        width=4 * hidden,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        norms=2,
        final_norm=1,
        max_positions=config.count("max_seq_len", 2048),
    )


def _phi(config: Config, name: str) -> ModelSpec:
    hidden = config.count("hidden_size")
    heads = config.count("num_attention_heads")
    size = divide(config, hidden, heads)
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=config.count("num_hidden_layers"),
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        width=config.count("intermediate_size"),
        norms=2,
        head_norm=4 * size if config.flag("qk_layernorm", False) else 0,
        max_positions=config.count("max_position_embeddings", 2048),
        rotary=rotary_size(config, size, 0.5),
        tied=False,
        head_bias=True,
    )


def _persimmon(config: Config, name: str) -> ModelSpec:
    hidden = config.count("hidden_size")
    heads = config.count("num_attention_heads")
    size = divide(config, hidden, heads)
    return _decoder(
        config,
        name,
        hidden=hidden,
        layers=config.count("num_hidden_layers"),
        heads=heads,
        width=config.count("intermediate_size"),
        head_norm=4 * size if config.flag("qk_layernorm", True) else 0,
        max_positions=config.count("max_position_embeddings", 16384),
        rotary=rotary_size(config, size, 0.5),
        tied=False,
    )


def _xglm(config: Config, name: str) -> ModelSpec:
    _no_cross_attention(config)
    return _decoder(
        config,
        name,
        hidden=_count(config, "d_model", "hidden_size"),
        layers=_count(config, "num_layers", "num_hidden_layers"),
        heads=_count(config, "attention_heads", "num_attention_heads"),
        width=config.count("ffn_dim"),
        max_positions=config.count("max_position_embeddings", 2048),
    )


def _biogpt(config: Config, name: str) -> ModelSpec:
    return _decoder(
        config,
        name,
        hidden=config.count("hidden_size"),
        layers=config.count("num_hidden_layers"),
        heads=config.count("num_attention_heads"),
        width=config.count("intermediate_size"),
        positions=config.count("max_position_embeddings", 1024) + 2,
    )


def _ctrl(config: Config, name: str) -> ModelSpec:
    return _decoder(
        config,
        name,
        hidden=_count(config, "n_embd", "hidden_size"),
        layers=_count(config, "n_layer", "num_hidden_layers"),
        heads=_count(config, "n_head", "num_attention_heads"),
        width=config.count("dff"),
        max_positions=_count(config, "n_positions", "max_position_embeddings", default=256),
        head_bias=True,
    )


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    "biogpt": _biogpt,
    "bloom": _bloom,
    "codegen": _gptj,
    "ctrl": _ctrl,
    "falcon": _falcon,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt_bigcode,
    "gpt_neo": _gpt_neo,
    "gpt_neox": _gpt_neox,
    "gptj": _gptj,
    "mpt": _mpt,
    "openai-gpt": _openai_gpt,
    "opt": _opt,
    "persimmon": _persimmon,
    "phi": _phi,
    "xglm": _xglm,
}
