"""Building blocks every importer composes a `ModelSpec` from.

Sizes are counts of features; biases and norm weights are counted where the published code has them.
Linear maps carry the tensor-parallel cut of the usual layout (inputs of a sublayer by column,
its output by row) and the precision group quantised checkpoints treat them by.
"""

from __future__ import annotations

from math import inf

from capacity.errors import InputError
from capacity.spec.model import (
    COLUMN,
    REPLICATED,
    ROW,
    Attention,
    Block,
    Embedding,
    Experts,
    FeedForward,
    Linear,
    ModelSpec,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    Kind = TypeVar("Kind")

MOST_LAYERS = 10_000


def attention(
    hidden: float,
    heads: float,
    kv_heads: float,
    head_size: float,
    *,
    value_size: float | None = None,
    bias: bool = False,
    out_bias: bool | None = None,
    out: float | None = None,
    window: float | None = None,
    chunked: bool = False,
    causal: bool = True,
    cross: bool = False,
    source: float | None = None,
    rotary_size: float | None = None,
    qk_norm: bool = False,
    vector_params: float = 0.0,
    gate: float = 0.0,
    group: str = "attention",
) -> Attention:
    """Multi-head, grouped-query or multi-query attention with projections q, k, v and o.

    bias: of q, k and v; out_bias: of o (None: as `bias`). out: width o writes (None: `hidden`).
    window: None or 0 for unlimited. source: width of what k and v are projected from (cross-attention).
    qk_norm only marks the op; its weights are counted in vector_params.
    gate: width of a further projection that gates the output (0: none).
    rotary_size: None for the whole head. A fused qkv projection is the same map as these three.
    """
    values = head_size if value_size is None else value_size
    inputs = hidden if source is None else source
    projections = [
        Linear("q_proj", hidden, heads * head_size, bias, COLUMN, group),
        Linear("k_proj", inputs, kv_heads * head_size, bias, COLUMN, group),
        Linear("v_proj", inputs, kv_heads * values, bias, COLUMN, group),
    ]
    if gate:
        projections.append(Linear("gate_proj", hidden, gate, False, COLUMN, group))
    ends_in = hidden if out is None else out
    projections.append(Linear("o_proj", heads * values, ends_in, bias if out_bias is None else out_bias, ROW, group))
    return Attention(
        tuple(projections),
        heads=heads,
        kv_heads=kv_heads,
        key_size=head_size,
        value_size=values,
        window=window or inf,
        chunked=chunked,
        causal=causal,
        cross=cross,
        cache_elements=kv_heads * (head_size + values),
        vector_params=vector_params,
        rotary_size=head_size if rotary_size is None else rotary_size,
        qk_norm=qk_norm,
    )


def latent_attention(
    hidden: float,
    heads: float,
    *,
    kv_rank: float,
    nope_size: float,
    rope_size: float,
    value_size: float,
    q_rank: float = 0.0,
    bias: bool = False,
    q_bias: bool = False,
    q_norm: bool = True,
    kv_norm: bool = True,
    window: float | None = None,
    extra: tuple[Linear, ...] = (),
    extra_vector_params: float = 0.0,
    selected: float = inf,
    indexer_heads: float = 0.0,
    indexer_size: float = 0.0,
) -> Attention:
    """Multi-head latent attention (MLA): keys and values are projected up from one cached vector.

    kv_rank: width of that vector, kept with one rotary key of rope_size. q_rank: 0 for a plain q_proj.
    nope_size: width of a head's key without position. bias: of the down projections and of o;
    q_bias: of a plain q_proj. extra: a sparse indexer's projections, with its heads and width.
    """
    key_size = nope_size + rope_size
    if q_rank:
        queries: tuple[Linear, ...] = (
            Linear("q_a_proj", hidden, q_rank, bias),
            Linear("q_b_proj", q_rank, heads * key_size, False, COLUMN),
        )
    else:
        queries = (Linear("q_proj", hidden, heads * key_size, q_bias, COLUMN),)
    projections = (
        *queries,
        Linear("kv_a_proj", hidden, kv_rank + rope_size, bias),
        Linear("kv_b_proj", kv_rank, heads * (nope_size + value_size), False, COLUMN),
        Linear("o_proj", heads * value_size, hidden, bias, ROW),
    )
    return Attention(
        (*projections, *extra),
        heads=heads,
        kv_heads=heads,
        key_size=key_size,
        value_size=value_size,
        window=window or inf,
        selected=selected,
        cache_elements=kv_rank + rope_size,
        latent=True,
        indexer_cache_elements=indexer_size if indexer_heads else 0.0,
        indexer_heads=indexer_heads,
        indexer_size=indexer_size,
        vector_params=(q_rank if q_norm else 0.0) + (kv_rank if kv_norm else 0.0) + extra_vector_params,
        rotary_size=rope_size,
    )


def ffn_projections(
    hidden: float,
    width: float,
    *,
    gated: bool = True,
    bias: bool = False,
    group: str = "ffn",
    out: float | None = None,
    prefix: str = "",
    shard: bool = True,
) -> tuple[Linear, ...]:
    """Gate (where there is one), up and down projections of one feed-forward network."""
    column, row = (COLUMN, ROW) if shard else (REPLICATED, REPLICATED)
    up = (Linear(f"{prefix}up_proj", hidden, width, bias, column, group),)
    gate = (Linear(f"{prefix}gate_proj", hidden, width, bias, column, group),) if gated else ()
    return (*gate, *up, Linear(f"{prefix}down_proj", width, hidden if out is None else out, bias, row, group))


def feed_forward(
    hidden: float, width: float, *, gated: bool = True, bias: bool = False, vector_params: float = 0.0
) -> FeedForward:
    """A dense feed-forward sublayer: gate (where there is one), up and down projections."""
    return FeedForward(ffn_projections(hidden, width, gated=gated, bias=bias), width, gated, vector_params)


def experts(
    hidden: float,
    width: float,
    count: float,
    active: float,
    *,
    gated: bool = True,
    bias: bool = False,
    router_bias: bool = False,
    shared_width: float = 0.0,
    shared_gate: bool = False,
    shared_bias: bool = False,
    vector_params: float = 0.0,
    latent: float | None = None,
) -> Experts:
    """A mixture of experts with a linear router and, where shared_width > 0, a network every token passes.

    shared_width: the inner width of all shared experts together. shared_gate: one number a token that weighs them.
    bias: of the routed experts' projections; vector_params: score-correction parameters and the like.
    latent: width of the stream the routed experts read and write (None: `hidden`).
    """
    router = [Linear("router", hidden, count, router_bias, REPLICATED, "router")]
    if shared_gate:
        router.append(Linear("shared_gate", hidden, 1, False, REPLICATED, "router"))
    shared: tuple[Linear, ...] = ()
    if shared_width:
        shared = ffn_projections(hidden, shared_width, gated=gated, bias=shared_bias, group="shared_expert")
    return Experts(
        tuple(router),
        ffn_projections(hidden if latent is None else latent, width, gated=gated, bias=bias, group="expert"),
        experts=count,
        active=active,
        width=width,
        shared=shared,
        shared_width=shared_width,
        gated=gated,
        vector_params=vector_params,
    )


def layer_count(count: int, where: str) -> int:
    """A number of layers that may be looped over; absurd ones are refused."""
    if count > MOST_LAYERS:
        raise InputError(f"{where}: {count} layers; no model has more than {MOST_LAYERS}")
    return count


def stack(kinds: Iterable[Kind], build: Callable[[Kind], Block]) -> tuple[Block, ...]:
    """Equal layers become one block: `build(kind)` is called once per distinct kind, in order of appearance.

    kinds: one hashable value per layer that says all that differs between layers. `build` returns a block
    of count 1; its count is multiplied by how many layers are of that kind.
    """
    from collections import Counter

    from capacity.record import replace

    blocks = []
    for kind, count in Counter(kinds).items():
        block = build(kind)
        blocks.append(replace(block, count=block.count * count))
    return tuple(blocks)


def token_embedding(vocab: float, width: float, name: str = "tokens", stack: str = "decoder") -> Embedding:
    """The table token ids are looked up in."""
    return Embedding(name, vocab, width, stack=stack)


def lm_head(hidden: float, vocab: float, *, tied: bool, bias: bool = False) -> tuple[Linear, ...]:
    """The projection onto the vocabulary; `tied` to the token embedding it stores nothing."""
    return (Linear("lm_head", hidden, vocab, bias, COLUMN, "head", tied),)


def decoder(
    *,
    name: str,
    architecture: str,
    source: str,
    hidden: float,
    vocab_size: float,
    blocks: tuple[Block, ...],
    tied: bool,
    final_norm: float | None = None,
    head_bias: bool = False,
    embedding_width: float | None = None,
    embeddings: tuple[Embedding, ...] = (),
    rotary: tuple[float, ...] = (),
    **more: Any,
) -> ModelSpec:
    """A decoder-only language model: token embedding, blocks, final norm, vocabulary projection.

    final_norm: its weights (None: one per feature, an RMSNorm). embeddings: further tables (positions).
    rotary: frequencies of each rotary table. more: any other field of ModelSpec.
    """
    return ModelSpec(
        name=name,
        architecture=architecture,
        hidden=hidden,
        vocab_size=vocab_size,
        blocks=blocks,
        embeddings=(token_embedding(vocab_size, embedding_width or hidden), *embeddings),
        head=lm_head(hidden, vocab_size, tied=tied, bias=head_bias),
        source=source,
        rotary=rotary,
        vector_params=hidden if final_norm is None else final_norm,
        **more,
    )
