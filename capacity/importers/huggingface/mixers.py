"""Token mixers beside softmax attention, and what the families that mix them share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.errors import InputError
from capacity.importers import parts
from capacity.importers.huggingface.config import Config
from capacity.importers.huggingface.layers import architecture
from capacity.record import replace
from capacity.spec.model import COLUMN, REPLICATED, ROW, Block, Linear, Recurrent

if TYPE_CHECKING:
    from capacity.spec.model import ModelSpec

# Tokens the reference forms of the delta rules take at once, fixed in their code.
DELTA_CHUNK = 64.0


def whole(config: Config, total: float, share: float, what: str) -> int:
    """`total` cut into equal parts of `share`; refuses what does not divide."""
    if share <= 0 or total % share:
        raise InputError(f"{config.where}: {what}: {total:g} is not a multiple of {share:g}")
    return int(total // share)


def mamba2(
    config: Config,
    hidden: int,
    *,
    heads: int,
    head_size: int,
    state: int,
    groups: int,
    kernel: int,
    chunk: int,
    bias: bool = False,
    out_bias: bool | None = None,
    conv_bias: bool = True,
    norm: bool = True,
) -> Recurrent:
    """A Mamba-2 mixer: one map to gate, inputs, B, C and time steps; convolution; scan; gated norm; map back.

    bias: of the first map; out_bias: of the last (None: the same). norm: whether the gated norm has weights.
    """
    whole(config, heads, groups, "heads of the Mamba layers by their groups")
    inner = heads * head_size
    channels = inner + 2 * groups * state
    return Recurrent(
        (
            Linear("in_proj", hidden, inner + channels + heads, bias, COLUMN),
            Linear("out_proj", inner, hidden, bias if out_bias is None else out_bias, ROW),
        ),
        "mamba2",
        heads=heads,
        key_size=state,
        value_size=head_size,
        groups=groups,
        conv_channels=channels,
        conv_kernel=kernel,
        conv_bias=conv_bias,
        chunk=chunk,
        # A time step's bias, a decay and a skip weight a head.
        vector_params=3 * heads + (inner if norm else 0),
    )


def mamba(
    hidden: int,
    inner: int,
    *,
    state: int,
    rank: int,
    kernel: int,
    bias: bool = False,
    conv_bias: bool = True,
    norms: bool = False,
) -> Recurrent:
    """A Mamba mixer: every channel is a head whose state is `state` numbers.

    rank: of the time step. norms: weights on the time step, B and C.
    """
    return Recurrent(
        (
            Linear("in_proj", hidden, 2 * inner, bias, COLUMN),
            Linear("x_proj", inner, rank + 2 * state, False, ROW),
            Linear("dt_proj", rank, inner, True, COLUMN),
            Linear("out_proj", inner, hidden, bias, ROW),
        ),
        "mamba",
        heads=inner,
        key_size=state,
        value_size=1.0,
        groups=1.0,
        conv_channels=inner,
        conv_kernel=kernel,
        conv_bias=conv_bias,
        chunk=1.0,
        # A decay for each number of the state and a skip weight a channel.
        vector_params=inner * state + inner + (rank + 2 * state if norms else 0),
    )


def gated_delta(
    config: Config, hidden: int, *, key_heads: int, value_heads: int, key_size: int, value_size: int, kernel: int
) -> Recurrent:
    """A gated delta net: queries, keys and values through a convolution, a decay and a rate a head, a gated norm."""
    whole(config, value_heads, key_heads, "value heads of the linear attention by its key heads")
    keys, values = key_heads * key_size, value_heads * value_size
    return Recurrent(
        (
            Linear("in_proj_qkv", hidden, 2 * keys + values, False, COLUMN),
            Linear("in_proj_z", hidden, values, False, COLUMN),
            Linear("in_proj_ba", hidden, 2 * value_heads, False, COLUMN),
            Linear("out_proj", values, hidden, False, ROW),
        ),
        "gated_delta",
        heads=value_heads,
        key_size=key_size,
        value_size=value_size,
        groups=key_heads,
        conv_channels=2 * keys + values,
        conv_kernel=kernel,
        chunk=DELTA_CHUNK,
        vector_params=2 * value_heads + value_size,
    )


def kimi_delta(hidden: int, *, heads: int, size: int, kernel: int, full_rank_gate: bool = False) -> Recurrent:
    """Kimi delta attention: a gated delta net whose decay differs for each channel of a key.

    full_rank_gate: the output gate is one map, not a pair through a vector of one head's width.
    """
    width = heads * size
    gate = (
        (Linear("g_proj", hidden, width, False, COLUMN),)
        if full_rank_gate
        else (Linear("g_a_proj", hidden, size), Linear("g_b_proj", size, width, False, COLUMN))
    )
    return Recurrent(
        (
            Linear("q_proj", hidden, width, False, COLUMN),
            Linear("k_proj", hidden, width, False, COLUMN),
            Linear("v_proj", hidden, width, False, COLUMN),
            Linear("f_a_proj", hidden, size),
            Linear("f_b_proj", size, width, False, COLUMN),
            Linear("b_proj", hidden, heads, False, COLUMN),
            *gate,
            Linear("o_proj", width, hidden, False, ROW),
        ),
        "kda",
        heads=heads,
        key_size=size,
        value_size=size,
        groups=heads,
        conv_channels=3 * width,
        conv_kernel=kernel,
        chunk=DELTA_CHUNK,
        vector_params=width + heads + size,
    )


def language_model(config: Config, *outer: str) -> Config:
    """The language model's part of a config; a flat config is its own. `outer`: facts the wrapper decides."""
    if not config.has("text_config"):
        return config
    text = config.sub("text_config")
    kept = {name: config.data[name] for name in ("architectures", *outer) if config.has(name)}
    return Config({**text.data, **kept}, text.where)


def truncated(config: Config, field: str, count: int) -> Config:
    """The config with only the first `count` entries of a list."""
    return Config({**config.data, field: config.items(field)[:count]}, config.where)


def next_token(hidden: int, blocks: tuple[Block, ...], times: float = 1.0) -> tuple[Block, ...]:
    """Multi-token prediction: `blocks` fed by a projection of the stream and the next token's embedding, with 3 norms."""
    if not times or not blocks:
        return ()
    first, *others = (replace(block, stack="mtp", count=block.count * times) for block in blocks)
    joint = Linear("eh_proj", 2 * hidden, hidden, False, REPLICATED)
    first = replace(first, extra=(*first.extra, joint), vector_params=first.vector_params + 3 * hidden)
    return (first, *others)


def assemble(config: Config, name: str, hidden: int, blocks: tuple[Block, ...], **facts: Any) -> ModelSpec:
    """A decoder from its blocks: the facts every config names alike, overridden by `facts`."""
    given: dict[str, Any] = {
        "vocab_size": config.count("vocab_size"),
        "max_positions": config.count("max_position_embeddings", 0, least=0),
        **facts,
    }
    if "tied" not in given:
        given["tied"] = config.flag("tie_word_embeddings", False)
    return parts.decoder(
        name=name, architecture=architecture(config), source=config.where, hidden=hidden, blocks=blocks, **given
    )
