"""A model and the tokens it is given become a table of ops: one forward pass, on one device, unsharded.

The table is the only place parameters and FLOPs are counted from.
"""

from __future__ import annotations

from math import inf

from capacity import ops as column
from capacity.formulas import flops
from capacity.record import Record, replace
from capacity.spec.model import Attention, Experts, FeedForward, Recurrent
from capacity.spec.op import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from capacity.spec.model import Block, Convolution, Linear, ModelSpec


class Tokens(Record):
    """What one forward pass is fed.

    sequences; queries: new tokens of each; past: tokens already in the cache.
    logits: positions per sequence whose logits are computed (None: all queries).
    encoder: tokens per sequence of an encoder, where the model has one (None: as many as queries);
    encoded: the encoder has run already (decode), so only its keys are read.
    images: pictures per sequence shown to a vision stack; patches: of each (None: as many as the model's
    config says).
    """

    sequences: float = 1.0
    queries: float = 1.0
    past: float = 0.0
    logits: float | None = None
    encoder: float | None = None
    encoded: bool = False
    images: float = 0.0
    patches: float | None = None


_MOST_TABLES = 64
_tables: dict[tuple[object, ...], tuple[ModelSpec, tuple[Op, ...]]] = {}


def lower(model: ModelSpec, tokens: Tokens, *, mtp: bool = False) -> tuple[Op, ...]:
    """The ops of one forward pass; `mtp` includes multi-token-prediction blocks."""
    # One answer asks for the same few tables many times over. The model is kept with its table, so that
    # its identity cannot be another's.
    key = (id(model), mtp, *tokens.__dict__.items())
    try:
        known = _tables.get(key)
    except TypeError:  # columns of tokens have no hash; a table of theirs is as large as a whole chunk of cases
        return tuple(_lower(model, tokens, mtp))
    if known is not None and known[0] is model:
        return known[1]
    table = tuple(_lower(model, tokens, mtp))
    if column.is_column(parameter_count(table)):
        return table
    if len(_tables) >= _MOST_TABLES:
        _tables.clear()
    _tables[key] = (model, table)
    return table


def _lower(model: ModelSpec, tokens: Tokens, mtp: bool) -> Iterator[Op]:
    shapes = {stack: _shape(model, stack, tokens) for stack in ("decoder", "encoder", "vision", "mtp")}
    for table in model.embeddings:
        sequences, queries, _ = shapes[table.stack]
        yield Op(
            name=f"{table.stack}.{table.name}",
            part="embedding",
            kind="embedding",
            count=1.0,
            m=sequences * queries * table.lookups,
            n=table.width,
            copies=1.0,
            weight_elements=0.0 if table.tied else table.rows * table.width,
            group="embedding",
            shard="column",
            stack=table.stack,
        )
    for conv in model.convs:
        sequences, queries, _ = shapes[conv.stack]
        positions = conv.positions if conv.stack != "vision" or tokens.patches is None else tokens.patches
        # An encoder that has run already is not fed again.
        yield _convolution(conv, sequences * positions if column.anywhere(queries) else 0.0)
    for frequencies in model.rotary:
        # Positions times frequencies, then a cosine and a sine of each: element-wise in current code.
        _, queries, _ = shapes["decoder"]
        yield Op(
            name="decoder.rotary",
            part="embedding",
            kind="elementwise",
            count=1.0,
            m=queries,
            elements=queries * frequencies * 4.0,
        )
    for block in (*model.blocks, *model.outside):
        if block.stack == "mtp" and not mtp:
            continue
        yield from _block(block, *_positions(model, block, *shapes[block.stack]), encoder=shapes["encoder"])
    sequences, queries, _ = shapes["decoder"]
    positions = queries if tokens.logits is None else tokens.logits
    if column.anywhere(model.vector_params):
        yield Op(
            name="decoder.final_norm",
            part="norm",
            kind="elementwise",
            count=1.0,
            m=sequences * queries,
            weight_elements=model.vector_params,
            elements=sequences * queries * model.hidden * 2.0,
        )
    for linear in model.head:
        yield _gemm("decoder.head", "head", linear, 1.0, sequences * positions, "decoder")


def _shape(model: ModelSpec, stack: str, tokens: Tokens) -> tuple[float, float, float]:
    """Sequences, queries and keys of a stack."""
    if stack == "vision":
        positions = _front_end(model, stack, tokens.patches)
        return tokens.sequences * tokens.images, positions, positions
    if stack == "encoder":
        length = _front_end(model, stack, None) or (tokens.queries if tokens.encoder is None else tokens.encoder)
        return tokens.sequences, (0.0 if tokens.encoded else length), length
    return tokens.sequences, tokens.queries, tokens.past + tokens.queries


def _front_end(model: ModelSpec, stack: str, patches: float | None) -> float:
    """Positions a stack's last convolution hands on, the learnt prefix included (0 where it has none)."""
    convs = [conv for conv in model.convs if conv.stack == stack]
    if not convs:
        return 0.0
    return convs[-1].prefix + (convs[-1].positions if patches is None else patches)


def _positions(
    model: ModelSpec, block: Block, sequences: float, queries: float, keys: float
) -> tuple[float, float, float]:
    """Sequences, queries and keys of a block."""
    if block.positions == "one":
        return sequences, 1.0, keys
    prefix = sum(conv.prefix for conv in model.convs if conv.stack == block.stack and block.positions == "patches")
    return sequences, (queries - prefix) * block.rate, (keys - prefix) * block.rate


def _block(
    block: Block, sequences: float, queries: float, keys: float, encoder: tuple[float, float, float]
) -> Iterator[Op]:
    tokens = sequences * queries
    for sublayer in block.sublayers:
        if isinstance(sublayer, Attention):
            yield from _attention(block, sublayer, sequences, queries, keys, encoder)
        elif isinstance(sublayer, Recurrent):
            yield from _recurrent(block, sublayer, sequences, queries)
        elif isinstance(sublayer, FeedForward):
            yield from _linears(block, "ffn", sublayer.projections, tokens)
            inner = sublayer.width * (3.0 if sublayer.gated else 2.0)
            yield _vectors(block, "ffn", sublayer.vector_params, tokens, tokens * inner)
        else:
            yield from _experts(block, sublayer, tokens)
    yield from _linears(block, "extra", block.extra, tokens)
    # Two norms and two residual additions read and write the stream four times each way.
    yield _vectors(block, "norm", block.vector_params, tokens, tokens * block.hidden * 8.0)


def _linears(block: Block, part: str, linears: tuple[Linear, ...], m: float) -> Iterator[Op]:
    for linear in linears:
        yield _gemm(f"{block.stack}.{part}", part, linear, block.count, m, block.stack)


def _gemm(
    prefix: str, part: str, linear: Linear, count: float, m: float, stack: str, copies: float = 1.0, active: float = 1.0
) -> Op:
    weights = linear.in_features * linear.out_features
    own = 0.0 if linear.tied else weights
    return Op(
        name=f"{prefix}.{linear.name}",
        part=part,
        kind="gemm",
        count=count,
        m=m * active,
        n=linear.out_features,
        k=linear.in_features,
        copies=copies,
        active=active,
        weight_elements=own + (linear.out_features if linear.bias else 0.0),
        group=linear.group,
        shard=linear.shard,
        stack=stack,
    )


def _vectors(block: Block, part: str, weights: float, m: float, elements: float) -> Op:
    return Op(
        name=f"{block.stack}.{part}.elementwise",
        part=part,
        kind="elementwise",
        count=block.count,
        m=m,
        weight_elements=weights,
        elements=elements,
        stack=block.stack,
    )


def _attention(
    block: Block,
    layer: Attention,
    sequences: float,
    queries: float,
    keys: float,
    encoder: tuple[float, float, float],
) -> Iterator[Op]:
    tokens = sequences * queries
    for linear in layer.projections:
        # Cross-attention projects the encoder's tokens to keys and values, once.
        from_encoder = layer.cross and linear.name in ("k_proj", "v_proj")
        m = layer.table or (encoder[0] * encoder[1] if from_encoder else tokens)
        if block.positions == "one" and linear.name in ("k_proj", "v_proj"):
            m = sequences * keys  # one query pools all positions of its sequence
        yield _gemm(f"{block.stack}.attention", "attention", linear, block.count, m, block.stack)
    if layer.split:
        sequences, queries, keys = tokens / layer.split, layer.split, layer.split
    keys = layer.table or (encoder[2] if layer.cross else keys)
    yield Op(
        name=f"{block.stack}.attention.core",
        part="attention",
        kind="attention",
        count=block.count,
        m=tokens,
        sequences=sequences,
        queries=queries,
        keys=keys,
        heads=layer.heads,
        kv_heads=layer.kv_heads,
        key_size=layer.key_size,
        value_size=layer.value_size,
        window=layer.window,
        selected=inf if layer.compressed else layer.selected,
        causal=layer.causal and not layer.cross,
        cross=layer.cross,
        cache_elements=layer.cache_elements,
        latent=layer.latent,
        shard="heads",
        stack=block.stack,
    )
    stride = layer.compressed or 1.0
    if layer.compressed:
        # The same queries also see the compressed keys; one softmax runs over both.
        yield Op(
            name=f"{block.stack}.attention.compressed",
            part="attention",
            kind="attention",
            count=block.count,
            m=tokens,
            sequences=sequences,
            queries=queries,
            keys=keys,
            stride=stride,
            heads=layer.heads,
            kv_heads=layer.kv_heads,
            key_size=layer.key_size,
            value_size=layer.value_size,
            selected=layer.selected * stride,
            causal=layer.causal,
            cache_elements=layer.cache_elements / stride,
            latent=layer.latent,
            shard="heads",
            stack=block.stack,
        )
    if layer.indexer_heads:
        # A score per head and key, then the heads' weighted sum.
        yield Op(
            name=f"{block.stack}.attention.indexer",
            part="attention",
            kind="attention",
            count=block.count,
            m=tokens,
            sequences=sequences,
            queries=queries,
            keys=keys,
            stride=stride,
            heads=layer.indexer_heads,
            kv_heads=1.0,
            key_size=layer.indexer_size,
            value_size=layer.indexer_value_size,
            causal=True,
            cache_elements=layer.indexer_cache_elements / stride,
            stack=block.stack,
        )
    width = layer.heads * layer.key_size + layer.kv_heads * (layer.key_size + layer.value_size)
    yield _vectors(block, "attention", layer.vector_params, tokens, tokens * width * 2.0)


def _recurrent(block: Block, layer: Recurrent, sequences: float, queries: float) -> Iterator[Op]:
    tokens = sequences * queries
    yield from _linears(block, "recurrent", layer.projections, tokens)
    if layer.conv_channels:
        yield Op(
            name=f"{block.stack}.recurrent.conv",
            part="recurrent",
            kind="conv",
            count=block.count,
            m=tokens,
            n=layer.conv_channels,
            k=layer.conv_kernel,
            sequences=sequences,
            queries=queries,
            weight_elements=layer.conv_channels * (layer.conv_kernel + (1.0 if layer.conv_bias else 0.0)),
            elements=tokens * layer.conv_channels * 2.0,
            shard="column",
            stack=block.stack,
        )
    if column.anywhere(layer.heads):
        yield Op(
            name=f"{block.stack}.recurrent.scan",
            part="recurrent",
            kind="scan",
            count=block.count,
            m=tokens,
            sequences=sequences,
            queries=queries,
            heads=layer.heads,
            key_size=layer.key_size,
            value_size=layer.value_size,
            groups=layer.groups,
            form=layer.kind,
            chunk=layer.chunk,
            shard="heads",
            stack=block.stack,
        )
    yield _vectors(block, "recurrent", layer.vector_params, tokens, tokens * layer.heads * layer.value_size * 4.0)


def _experts(block: Block, layer: Experts, tokens: float) -> Iterator[Op]:
    yield from _linears(block, "router", layer.router, tokens)
    for linear in layer.projections:
        yield _gemm(
            f"{block.stack}.expert",
            "expert",
            linear,
            block.count,
            tokens,
            block.stack,
            copies=layer.experts,
            active=layer.active,
        )
    yield from _linears(block, "shared_expert", layer.shared, tokens)
    inner = (layer.width * layer.active + layer.shared_width) * (3.0 if layer.gated else 2.0)
    moved = _vectors(block, "expert", layer.vector_params, tokens, tokens * (inner + layer.active * block.hidden * 4.0))
    yield replace(moved, k=block.hidden, active=layer.active)


def _convolution(conv: Convolution, outputs: float) -> Op:
    return Op(
        name=f"{conv.stack}.{conv.name}",
        part="vision",
        kind="conv",
        count=1.0,
        m=outputs,
        n=conv.out_channels,
        k=conv.in_channels * conv.kernel,
        weight_elements=conv.out_channels * (conv.in_channels * conv.kernel + (1.0 if conv.bias else 0.0)),
        group="vision",
        stack=conv.stack,
    )


def counted_flop(op: Op) -> float:
    """FLOPs of one application of an op as torch's FlopCounterMode counts them on the meta device.

    Counts: GEMMs, attention as the full square of queries and keys, convolutions, the matrix products
    of a recurrence's reference form. Ignores: element-wise work.
    """
    if op.kind == "gemm":
        return flops.gemm_flop(op.m, op.n, op.k)
    if op.kind == "attention":
        keys = op.keys if op.stride == 1.0 else flops.compressed_keys(op.keys, op.stride)
        work = flops.attention_flop(op.sequences, op.queries, keys, op.heads, op.key_size, op.value_size)
        return work if op.phase == "forward" else flops.backward_flop(work)
    if op.kind == "recurrent":
        work = flops.gemm_flop(op.m, op.n, op.k)
        return work if op.phase == "forward" else flops.backward_flop(work)
    if op.kind == "conv" and op.part == "recurrent":
        from capacity.formulas import recurrence

        return recurrence.short_convolution_flop(op.sequences, op.queries, op.n, op.k)
    if op.kind == "conv":
        return flops.convolution_flop(op.m, op.n, op.k, 1.0)
    if op.kind == "scan":
        from capacity.formulas import recurrence

        return recurrence.counted_scan_flop(
            op.form, op.sequences, op.queries, op.heads, op.key_size, op.value_size, op.groups, op.chunk
        )
    return 0.0


def parameter_count(ops: tuple[Op, ...]) -> float:
    """Parameters of a model from its op table."""
    return sum(op.count * op.copies * op.weight_elements for op in ops)


def active_parameter_count(ops: tuple[Op, ...]) -> float:
    """Parameters less the experts a token does not visit.

    Text does not pass the vision tower of a model that also has a decoder.
    """
    reads = any(op.stack == "decoder" and op.kind == "gemm" for op in ops)
    return sum(
        op.count * column.where(op.copies > 1.0, op.active, op.copies) * op.weight_elements
        for op in ops
        if not (reads and op.stack == "vision")
    )


def model_flop(ops: tuple[Op, ...]) -> float:
    """FLOPs of one forward pass as MFU counts them: attention as the square of what a query can reach.

    Like `forward_flop`, causal masks are not subtracted; unlike it, a window or a sparse selection is.
    """
    return sum(op.count * counted_flop(op) * (_reached(op) if op.kind == "attention" else 1.0) for op in ops)


def _reached(op: Op) -> float:
    """Share of the keys that a query can reach through a window or a sparse selection."""
    return column.minimum(column.minimum(op.keys, op.window), op.selected) / op.keys


def forward_flop(ops: tuple[Op, ...]) -> float:
    """FLOPs of one forward pass in torch's counting."""
    return sum(op.count * counted_flop(op) for op in ops)
