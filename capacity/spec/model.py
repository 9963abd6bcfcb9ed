"""A model as its published code builds it: stacks of blocks, blocks of sublayers, sublayers of linear maps.

An importer writes these records from a config file; `capacity.estimators.lowering` turns them into
a table of ops. Parameters and FLOPs are counted from the ops alone, so a record that is right makes
both exact.
"""

from __future__ import annotations

from math import inf

from capacity.record import Record

COLUMN, ROW, REPLICATED = "column", "row", "replicated"


class Linear(Record):
    """A matrix of weights applied to each token: `y[out] = W[out, in] x[in] (+ b[out])`.

    shard: how tensor parallelism cuts it: "column" (its outputs), "row" (its inputs, then an
    all-reduce) or "replicated".
    group: which precision group of a quantised checkpoint it belongs to: "attention", "ffn",
    "expert", "shared_expert", "router", "head", "vision".
    tied: the weight is another part's (an embedding), so it is computed with but not counted again.
    """

    name: str
    in_features: float
    out_features: float
    bias: bool = False
    shard: str = REPLICATED
    group: str = "attention"
    tied: bool = False


class Attention(Record):
    """Softmax attention with its projections.

    heads, kv_heads; key_size and value_size: width of one head of keys (and queries) and of values.
    window: keys a query may see (`inf` for all); `chunked`: the window is a fixed block, not a sliding one.
    selected: keys a query really attends to after a sparse indexer has chosen (`inf` for all).
    cross: keys come from the encoder. causal: a query sees no later key.
    cache_elements: numbers kept per token in the KV cache of one such layer (0 where another layer's
    cache is shared); latent: the cache is one latent vector for all heads (MLA), so tensor
    parallelism cannot cut it. indexer_cache_elements: what a sparse indexer keeps per token besides.
    vector_params: norm weights, attention sinks, relative-position biases: everything not in a Linear.
    indexer_value_size: 1 where the published code sums the indexer's heads by a product, 0 where element-wise.
    rotary_size: width of a head that is rotated (0: no rotary embedding).
    compressed: besides the keys in the window, queries see one key made of every so many tokens (0: none);
    `selected` and the indexer then choose among these.
    split: the sequence is cut into pieces of this many positions that do not see each other, and the kernel
    is called on the pieces (0: not cut; a `window` only masks).
    table: keys come from a learnt table of this many rows, the same for all sequences (0: from the tokens);
    its projections are applied to those rows.
    """

    projections: tuple[Linear, ...]
    heads: float
    kv_heads: float
    key_size: float
    value_size: float
    window: float = inf
    chunked: bool = False
    selected: float = inf
    causal: bool = True
    cross: bool = False
    cache_elements: float = 0.0
    latent: bool = False
    indexer_cache_elements: float = 0.0
    indexer_heads: float = 0.0
    indexer_size: float = 0.0
    vector_params: float = 0.0
    rotary_size: float = 0.0
    qk_norm: bool = False
    split: float = 0.0
    table: float = 0.0
    compressed: float = 0.0
    indexer_value_size: float = 1.0


class Recurrent(Record):
    """Linear attention or a state-space layer: a state of fixed size per sequence instead of a KV cache.

    kind: "mamba", "mamba2", "gated_delta", "kda", "lightning", "rwkv" ...
    heads, key_size, value_size: the state of one sequence is heads x key_size x value_size numbers.
    groups: heads share keys in this many groups (as KV heads do).
    conv_channels, conv_kernel: the short causal convolution before it (0 channels: none).
    chunk: tokens processed at once by the chunked form of the scan.
    """

    projections: tuple[Linear, ...]
    kind: str
    heads: float
    key_size: float
    value_size: float
    groups: float = 1.0
    conv_channels: float = 0.0
    conv_kernel: float = 0.0
    conv_bias: bool = False
    chunk: float = 64.0
    vector_params: float = 0.0


class FeedForward(Record):
    """A dense feed-forward sublayer; `width` is its inner width, `gated` tells up and gate projections apart."""

    projections: tuple[Linear, ...]
    width: float
    gated: bool = True
    vector_params: float = 0.0


class Experts(Record):
    """A mixture of experts: a router, `experts` copies of `projections` of which each token visits `active`.

    shared: projections every token passes besides the routed ones.
    router: the linear maps that choose (usually one; with a gate for the shared expert, two).
    reach: groups of experts, each on a node of its own, that a token's experts may lie in (inf: any).
    """

    router: tuple[Linear, ...]
    projections: tuple[Linear, ...]
    experts: float
    active: float
    width: float
    shared: tuple[Linear, ...] = ()
    shared_width: float = 0.0
    gated: bool = True
    vector_params: float = 0.0
    reach: float = inf


Sublayer = Attention | Recurrent | FeedForward | Experts


class Block(Record):
    """`count` equal layers of one stack: sublayers in order, and the vectors (norms) around them.

    stack: "decoder", "encoder", "vision", "mtp" (multi-token prediction: loaded by few runtimes and
    left out of the parameter count of the published architecture).
    hidden: width of the residual stream. extra: further linear maps of the layer (adapters,
    per-layer inputs, hyper-connections) applied to each token.
    positions: which of its stack's it works on: "all"; "patches", without the learnt prefix; "one" of each
    sequence or image (poolers, classifiers). rate: of those, the share left (1/4 after a 2 x 2 patch merger).
    """

    count: float
    hidden: float
    sublayers: tuple[Sublayer, ...]
    stack: str = "decoder"
    vector_params: float = 0.0
    extra: tuple[Linear, ...] = ()
    positions: str = "all"
    rate: float = 1.0


class Embedding(Record):
    """A table of `rows` x `width` looked up by token, position or type.

    tied: another part's table is used, nothing is stored. lookups: rows read per token.
    """

    name: str
    rows: float
    width: float
    tied: bool = False
    lookups: float = 1.0
    stack: str = "decoder"


class ModelSpec(Record):
    """A whole model.

    name; architecture: the class name its config gives; source: file, URL or paper it was read from.
    hidden, vocab_size: of the main (decoder) stack; max_positions: the longest context it was built for.
    blocks in order; outside: those that are no layers (mergers, poolers, norms between stacks); embeddings; head: linear maps after the last block, with `head_stack` "decoder".
    rotary: for each rotary table computed once per forward, its number of frequencies.
    vector_params: final norms and other vectors outside blocks.
    convs: patch or audio front ends.
    weight_bits: effective bits per weight by precision group, from the checkpoint's quantisation config
    ("" is the default group); empty: as the workload says. weight_format: what its narrowest weights are, "nvfp4"
    or "fp8", "" where the config names none.
    inferred: names of facts that were guessed, each with what it was guessed from.
    notes: what the record leaves out or a reader should know.
    """

    name: str
    architecture: str
    hidden: float
    vocab_size: float
    blocks: tuple[Block, ...]
    embeddings: tuple[Embedding, ...]
    head: tuple[Linear, ...]
    source: str
    rotary: tuple[float, ...] = ()
    vector_params: float = 0.0
    convs: tuple[Convolution, ...] = ()
    max_positions: float = 0.0
    weight_bits: dict[str, float] | None = None
    weight_format: str = ""
    inferred: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    outside: tuple[Block, ...] = ()


class Convolution(Record):
    """A front-end convolution: `out_channels` filters over `in_channels` x kernel inputs each.

    positions: output positions per image or per audio clip. A stack works on what its last convolution
    gives, and on `prefix` learnt positions before that (class and register tokens).
    """

    name: str
    in_channels: float
    out_channels: float
    kernel: float
    positions: float
    bias: bool = True
    stack: str = "vision"
    prefix: float = 0.0
