"""Encoders of text: BERT and its kin. Every token sees every other; the class says which head sits on top."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.errors import UnsupportedArchitectureError
from capacity.importers import parts
from capacity.importers.huggingface.common import divide, labels, layers_apart, norm, pooled, seeing_all, task
from capacity.importers.huggingface.layers import architecture, per_layer
from capacity.record import Record, replace
from capacity.spec.model import COLUMN, REPLICATED, ROW, Attention, Block, Embedding, Linear, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.importers.huggingface.config import Config

ENCODER = "encoder"
PER_TOKEN = ("ForTokenClassification", "ForQuestionAnswering")
TASKS = ("Model", "ForMaskedLM", "ForSequenceClassification", *PER_TOKEN)


class Head(Record):
    """What a class puts on an encoder: maps on every token, their norm weights, and blocks on pooled positions."""

    maps: tuple[Linear, ...] = ()
    norms: float = 0.0
    blocks: tuple[Block, ...] = ()


def _map(name: str, inputs: float, outputs: float, *, bias: bool = True) -> Linear:
    return Linear(name, inputs, outputs, bias, REPLICATED, "head")


def _masked_lm(hidden: int, width: int, vocab: int, *, tied: bool, spare_bias: bool = True) -> Head:
    """A transform to the embedding's width, its norm, and the vocabulary with a bias.

    spare_bias: the class holds the bias a second time, which is the same one only where the head is tied.
    """
    vocabulary = Linear("lm_head", width, vocab, True, COLUMN, "head", tied)
    return Head((_map("transform", hidden, width), vocabulary), 2.0 * width + (vocab if spare_bias and not tied else 0))


def _classifier(hidden: int, number: int, *, first: str) -> Head:
    """A dense layer and a classifier on the first position of each sequence."""
    return Head(blocks=(pooled(hidden, ENCODER, (first, hidden, hidden), ("classifier", hidden, number)),))


def _token_classifier(hidden: int, number: int) -> Head:
    return Head((_map("classifier", hidden, number),))


def _pooler(hidden: int) -> Head:
    return Head(blocks=(pooled(hidden, ENCODER, ("pooler", hidden, hidden)),))


def _layer(hidden: int, heads: int, width: int) -> Block:
    """One layer as BERT has it: biases everywhere, two layer norms."""
    mixer = seeing_all(parts.attention(hidden, heads, heads, hidden // heads, bias=True, rotary_size=0))
    return Block(
        1, hidden, (mixer, parts.feed_forward(hidden, width, gated=False, bias=True)), ENCODER, vector_params=4 * hidden
    )


def _encoder(
    config: Config,
    name: str,
    *,
    hidden: int,
    blocks: tuple[Block, ...],
    head: Head,
    tables: dict[str, int],
    width: int | None = None,
    embedding_norm: float = 2.0,
    rotary: tuple[float, ...] = (),
    max_positions: int = 0,
) -> ModelSpec:
    """An encoder from its layers. tables: rows of each embedding table; width: of the tables where it differs."""
    narrow = hidden if width is None else width
    into = Linear("project_in", narrow, hidden, True, REPLICATED, "head")
    first = Block(
        1, hidden, (), ENCODER, vector_params=embedding_norm * narrow, extra=() if narrow == hidden else (into,)
    )
    model = ModelSpec(
        name=name,
        architecture=architecture(config),
        hidden=hidden,
        vocab_size=config.count("vocab_size"),
        blocks=(first, *blocks, *head.blocks),
        embeddings=tuple(Embedding(kind, rows, narrow, stack=ENCODER) for kind, rows in tables.items() if rows),
        head=head.maps,
        source=config.where,
        rotary=rotary,
        vector_params=head.norms,
        max_positions=max_positions,
    )
    return layers_apart(model)


def _no_decoder(config: Config) -> None:
    if config.flag("is_decoder", False) or config.flag("add_cross_attention", False):
        raise UnsupportedArchitectureError(
            f"{config.where}: this encoder is configured as a decoder, which is not known"
        )


def _bert(config: Config, name: str) -> ModelSpec:
    return _bert_like(config, name, roberta=False)


def _roberta(config: Config, name: str) -> ModelSpec:
    return _bert_like(config, name, roberta=True)


def _bert_like(config: Config, name: str, *, roberta: bool) -> ModelSpec:
    _no_decoder(config)
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    divide(config, hidden, heads)
    vocab, tied = config.count("vocab_size"), config.flag("tie_word_embeddings", True)
    kind = task(config, TASKS if roberta else (*TASKS, "ForPreTraining", "ForNextSentencePrediction"), "ForMaskedLM")
    if kind == "Model":
        head = _pooler(hidden)
    elif kind == "ForMaskedLM":
        head = _masked_lm(hidden, hidden, vocab, tied=tied)
    elif kind == "ForSequenceClassification":
        head = _classifier(hidden, labels(config), first="dense")
    elif kind == "ForNextSentencePrediction":
        head = _classifier(hidden, 2, first="pooler")
    elif kind == "ForPreTraining":
        head = replace(
            _masked_lm(hidden, hidden, vocab, tied=tied), blocks=_classifier(hidden, 2, first="pooler").blocks
        )
    else:
        head = _token_classifier(hidden, labels(config))
    positions = config.count("max_position_embeddings", 512)
    return _encoder(
        config,
        name,
        hidden=hidden,
        blocks=(replace(_layer(hidden, heads, config.count("intermediate_size")), count=_layers(config)),),
        head=head,
        tables={"tokens": vocab, "positions": positions, "types": config.count("type_vocab_size", 2, least=0)},
        max_positions=positions,
    )


def _layers(config: Config, field: str = "num_hidden_layers") -> int:
    return parts.layer_count(config.count(field), config.where)


def _distilbert(config: Config, name: str) -> ModelSpec:
    hidden = config.count(config.named("dim", "hidden_size"))
    heads = config.count(config.named("n_heads", "num_attention_heads"))
    divide(config, hidden, heads)
    vocab = config.count("vocab_size")
    kind = task(config, TASKS, "ForMaskedLM")
    if kind == "Model":
        head = Head()
    elif kind == "ForMaskedLM":
        head = _masked_lm(hidden, hidden, vocab, tied=config.flag("tie_word_embeddings", True), spare_bias=False)
    elif kind == "ForSequenceClassification":
        head = _classifier(hidden, labels(config), first="pre_classifier")
    else:
        head = _token_classifier(hidden, labels(config))
    positions = config.count("max_position_embeddings", 512)
    layers = _layers(config, config.named("n_layers", "num_hidden_layers"))
    return _encoder(
        config,
        name,
        hidden=hidden,
        blocks=(replace(_layer(hidden, heads, config.count("hidden_dim")), count=layers),),
        head=head,
        tables={"tokens": vocab, "positions": positions},
        max_positions=positions,
    )


def _electra(config: Config, name: str) -> ModelSpec:
    _no_decoder(config)
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    divide(config, hidden, heads)
    width, vocab = config.count("embedding_size", 128), config.count("vocab_size")
    kind = task(config, (*TASKS, "ForPreTraining"), "ForPreTraining")
    if kind == "Model":
        head = Head()
    elif kind == "ForMaskedLM":
        head = _masked_lm(hidden, width, vocab, tied=config.flag("tie_word_embeddings", True), spare_bias=False)
    elif kind == "ForPreTraining":
        head = Head((_map("dense", hidden, hidden), _map("replaced", hidden, 1)))
    elif kind == "ForSequenceClassification":
        head = _classifier(hidden, labels(config), first="dense")
    else:
        head = _token_classifier(hidden, labels(config))
    positions = config.count("max_position_embeddings", 512)
    return _encoder(
        config,
        name,
        hidden=hidden,
        width=width,
        blocks=(replace(_layer(hidden, heads, config.count("intermediate_size")), count=_layers(config)),),
        head=head,
        tables={"tokens": vocab, "positions": positions, "types": config.count("type_vocab_size", 2, least=0)},
        max_positions=positions,
    )


def _again(block: Block, count: float) -> Block:
    """The same layer applied `count` times more with the weights it has already."""

    def shared(linears: tuple[Linear, ...]) -> tuple[Linear, ...]:
        return tuple(replace(linear, tied=True, bias=False) for linear in linears)

    sublayers = tuple(
        replace(sublayer, projections=shared(sublayer.projections), vector_params=0.0) for sublayer in block.sublayers
    )
    return replace(block, count=count, sublayers=sublayers, vector_params=0.0)


def _albert(config: Config, name: str) -> ModelSpec:
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    divide(config, hidden, heads)
    width, vocab = config.count("embedding_size", 128), config.count("vocab_size")
    kind = task(config, TASKS, "ForMaskedLM")
    number = labels(config)
    if kind == "Model":
        head = _pooler(hidden)
    elif kind == "ForMaskedLM":
        head = _masked_lm(hidden, width, vocab, tied=config.flag("tie_word_embeddings", True))
    elif kind == "ForSequenceClassification":
        head = _classifier(hidden, number, first="pooler")
    else:
        head = _token_classifier(hidden, number)
    inner = config.count("inner_group_num", 1)
    groups, layers = config.count("num_hidden_groups", 1), _layers(config)
    if groups > layers:
        raise UnsupportedArchitectureError(
            f"{config.where}: num_hidden_groups {groups} is more than num_hidden_layers {layers}"
        )
    layer = replace(_layer(hidden, heads, config.count("intermediate_size")), count=groups * inner)
    blocks = (layer,) if layers == groups else (layer, _again(layer, (layers - groups) * inner))
    positions = config.count("max_position_embeddings", 512)
    into = Linear("project_in", width, hidden, True, REPLICATED, "head")
    spec = _encoder(
        config,
        name,
        hidden=hidden,
        width=width,
        blocks=blocks,
        head=head,
        tables={"tokens": vocab, "positions": positions, "types": config.count("type_vocab_size", 2, least=0)},
        max_positions=positions,
    )
    # The projection is there even where the widths agree.
    return replace(spec, outside=(replace(spec.outside[0], extra=(into,)), *spec.outside[1:]))


def _modernbert(config: Config, name: str) -> ModelSpec:
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    size = divide(config, hidden, heads)
    vocab, layers = config.count("vocab_size"), _layers(config)
    bias = config.flag("attention_bias", False)
    network = parts.feed_forward(hidden, config.count("intermediate_size"), bias=config.flag("mlp_bias", False))
    weights = hidden * (2 if config.flag("norm_bias", False) else 1)
    period = config.count("global_attn_every_n_layers", 3)
    kinds = per_layer(config, "layer_types", layers) or [
        "sliding_attention" if layer % period else "full_attention" for layer in range(layers)
    ]
    window = config.count("local_attention", 128)

    def layer(kind: tuple[bool, bool]) -> Block:
        first, local = kind
        mixer = parts.attention(hidden, heads, heads, size, bias=bias, window=window if local else None)
        # The embeddings are normed already, so the first layer has no norm of its own before attention.
        return Block(1, hidden, (seeing_all(mixer), network), ENCODER, vector_params=weights * (1 if first else 2))

    blocks = parts.stack(((index == 0, kind == "sliding_attention") for index, kind in enumerate(kinds)), layer)
    kind = task(config, TASKS, "ForMaskedLM")
    dense = _map("dense", hidden, hidden, bias=config.flag("classifier_bias", False))
    if kind == "Model":
        head = Head()
    elif kind == "ForMaskedLM":
        decoder_bias = config.flag("decoder_bias", True)
        tied = config.flag("tie_word_embeddings", True)
        head = Head((dense, Linear("lm_head", hidden, vocab, decoder_bias, COLUMN, "head", tied)), weights)
    elif kind == "ForSequenceClassification":
        classifier = pooled(hidden, ENCODER, ("classifier", hidden, labels(config)))
        head = Head(blocks=(replace(classifier, extra=(dense, *classifier.extra), vector_params=weights),))
    else:
        head = Head((dense, _map("classifier", hidden, labels(config))), weights)
    return _encoder(
        config,
        name,
        hidden=hidden,
        blocks=(*blocks, norm(hidden, weights, ENCODER)),
        head=head,
        tables={"tokens": vocab},
        embedding_norm=weights / hidden,
        rotary=(size / 2, size / 2),
        max_positions=config.count("max_position_embeddings", 8192),
    )


def _deberta(config: Config, name: str) -> ModelSpec:
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    size = config.count("attention_head_size", divide(config, hidden, heads))
    width, vocab = config.count("embedding_size", hidden), config.count("vocab_size")
    mixer = seeing_all(parts.attention(hidden, heads, heads, size, bias=True, rotary_size=0))
    network = parts.feed_forward(hidden, config.count("intermediate_size"), gated=False, bias=True)
    positions = config.count("max_position_embeddings", 512)
    relative: tuple[Attention, ...] = ()
    rows = 0
    if config.flag("relative_attention", False):
        reach = config.count("max_relative_positions", -1, least=-1)
        buckets = config.count("position_buckets", -1, least=-1)
        rows = 2 * (buckets if buckets > 0 else reach if reach > 0 else positions)
        relative = _relative(config, hidden, heads, size, rows)
    layer = Block(1, hidden, (mixer, *relative, network), ENCODER, vector_params=4 * hidden)
    layers, kernel = _layers(config), config.count("conv_kernel_size", 0, least=0)
    blocks: tuple[Block, ...] = (replace(layer, count=layers),)
    if kernel:
        # After the first layer, a convolution over neighbouring tokens: one matrix over `kernel` of them.
        groups = config.count("conv_groups", 1)
        conv = Linear("conv", kernel * hidden / groups, hidden, True, ROW, "ffn")
        blocks = (replace(layer, extra=(conv,), vector_params=6 * hidden), replace(layer, count=layers - 1))
    if rows and "layer_norm" in config.text("norm_rel_ebd", "none").lower():
        blocks = (*blocks, norm(hidden, 2 * hidden, ENCODER))
    spec = _encoder(
        config,
        name,
        hidden=hidden,
        width=width,
        blocks=blocks,
        head=_deberta_head(config, hidden, width, vocab),
        tables={
            "tokens": vocab,
            "positions": positions if config.flag("position_biased_input", True) else 0,
            "types": config.count("type_vocab_size", 0, least=0),
        },
        max_positions=positions,
    )
    first = replace(
        spec.outside[0],
        extra=tuple(replace(linear, bias=False) for linear in spec.outside[0].extra),
        vector_params=2.0 * hidden,
    )
    table = (Embedding("relative", rows, hidden, lookups=0.0, stack=ENCODER),) if rows else ()
    return replace(spec, outside=(first, *spec.outside[1:]), embeddings=(*spec.embeddings, *table))


def _relative(config: Config, hidden: int, heads: int, size: int, rows: int) -> tuple[Attention, ...]:
    """Scores of contents against learnt positions (c2p) and of positions against contents (p2c)."""
    given = config.data.get("pos_att_type")
    kinds = given.lower().split("|") if isinstance(given, str) else given if isinstance(given, list) else []
    shared = config.flag("share_att_key", False)
    found = []
    for kind in ("c2p", "p2c"):
        if kind in [str(word).strip() for word in kinds]:
            # Shared, the maps of the contents are used once more.
            keys = Linear("k_proj", hidden, heads * size, not shared, COLUMN, tied=shared)
            found.append(Attention((keys,), heads, heads, size, 0.0, causal=False, table=rows))
    if shared and len(found) < 2:
        # Both maps are applied to the positions whichever of the scores are used.
        raise UnsupportedArchitectureError(f"{config.where}: share_att_key with pos_att_type {str(given)[:40]!r}")
    return tuple(found)


def _deberta_head(config: Config, hidden: int, width: int, vocab: int) -> Head:
    kind = task(config, TASKS, "ForMaskedLM")
    if kind == "Model":
        return Head()
    if kind == "ForMaskedLM":
        if not config.flag("legacy", True):
            raise UnsupportedArchitectureError(f"{config.where}: legacy is false; only the legacy head is known")
        return _masked_lm(hidden, width, vocab, tied=config.flag("tie_word_embeddings", True))
    if kind == "ForSequenceClassification":
        return _classifier(hidden, labels(config), first="pooler")
    return _token_classifier(hidden, labels(config))


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    "albert": _albert,
    "bert": _bert,
    "camembert": _roberta,
    "deberta-v2": _deberta,
    "distilbert": _distilbert,
    "electra": _electra,
    "modernbert": _modernbert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}
