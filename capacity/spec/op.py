"""One row of the op table."""

from __future__ import annotations

from math import inf

from capacity.record import Record


class Op(Record):
    """What one kernel family has to do in one forward pass, per device once it has been sharded.

    name: "decoder.attention.q_proj"; part: attention, ffn, expert, router, shared_expert, head,
    embedding, norm, recurrent, vision.
    kind: "gemm" (m x k times k x n), "attention", "scan", "conv", "embedding", "elementwise".
    count: how many times per forward pass (layers).
    m, n, k: GEMM shape, m the tokens; copies: matrices resident (experts), active: of which touched.
    weight_elements: parameters of one application, vectors and biases included.
    group: precision group of the weights; shard: how tensor parallelism cuts it.
    Attention: sequences, queries and keys per sequence, heads, kv_heads, key_size, value_size,
    window, selected (keys a sparse indexer keeps), causal, cross; stride: one key is
    stored for every `stride` tokens; keys, window, selected and cache_elements still count by token. Scan: form (the recurrence), chunk.
    elements: numbers read and written per application of an element-wise op.
    stack: which stack the op belongs to.
    Of traced networks (capacity/spec/graph.py): kind "conv" has form "conv", "transposed" or a gradient's, m positions, n
    channels out, k channels in of a group times taps; kind "recurrent" (form lstm, gru, rnn) has m steps of all
    sequences, n gates times hidden, k inputs and hidden. phase: "forward" or "backward".
    """

    name: str
    part: str
    kind: str
    count: float
    m: float = 0.0
    n: float = 0.0
    k: float = 0.0
    copies: float = 1.0
    active: float = 1.0
    weight_elements: float = 0.0
    group: str = ""
    shard: str = "replicated"
    sequences: float = 0.0
    queries: float = 0.0
    keys: float = 0.0
    heads: float = 0.0
    kv_heads: float = 0.0
    key_size: float = 0.0
    value_size: float = 0.0
    window: float = inf
    selected: float = inf
    stride: float = 1.0
    causal: bool = False
    cross: bool = False
    form: str = ""
    chunk: float = 0.0
    groups: float = 1.0
    cache_elements: float = 0.0
    latent: bool = False
    elements: float = 0.0
    stack: str = "decoder"
    taps: float = 1.0
    phase: str = "forward"
