"""Encoder-decoder transformers: the T5 family, the BART family and Whisper.

Every decoder layer attends to its own tokens, then to the encoder's, whose keys and values are projected once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.errors import UnsupportedArchitectureError
from capacity.importers import parts
from capacity.importers.huggingface.common import divide, labels, layers_apart, norm, pooled, seeing_all, task
from capacity.importers.huggingface.layers import architecture
from capacity.record import Record, replace
from capacity.spec.model import Attention, Block, Convolution, Embedding, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.importers.huggingface.config import Config


class Family(Record):
    """In what one descendant of BART differs from another.

    positions: "learnt" or "fixed" tables (both stored), or "" where none is stored; offset: rows never read.
    embedding_norm, final_norm: layer norms after the embeddings and after the last layer of each stack.
    """

    positions: str = "learnt"
    offset: int = 0
    embedding_norm: bool = False
    final_norm: bool = True


FAMILIES: dict[str, Family] = {
    "bart": Family(offset=2, embedding_norm=True, final_norm=False),
    "blenderbot": Family(),
    "blenderbot-small": Family(embedding_norm=True, final_norm=False),
    "m2m_100": Family(positions=""),
    "marian": Family(positions="fixed", final_norm=False),
    "mbart": Family(offset=2, embedding_norm=True),
    "pegasus": Family(positions="fixed"),
    "plbart": Family(offset=2, embedding_norm=True, final_norm=False),
}
TASKS = ("ForConditionalGeneration", "Model")


def _attention(
    hidden: int, heads: int, size: int, *, bias: bool, key_bias: bool = True, cross: bool = False
) -> Attention:
    layer = parts.attention(hidden, heads, heads, size, bias=bias, cross=cross, rotary_size=0)
    if bias and not key_bias:
        plain = tuple(replace(p, bias=False) if p.name == "k_proj" else p for p in layer.projections)
        layer = replace(layer, projections=plain)
    return layer


def _side(config: Config, hidden: int, side: str, *, key_bias: bool = True) -> Block:
    """All layers of one side of a descendant of BART."""
    heads = config.count(f"{side}_attention_heads")
    size = divide(config, hidden, heads)
    own = _attention(hidden, heads, size, bias=True, key_bias=key_bias)
    network = parts.feed_forward(hidden, config.count(f"{side}_ffn_dim"), gated=False, bias=True)
    layers = parts.layer_count(config.count(f"{side}_layers"), config.where)
    if side == "encoder":
        return Block(layers, hidden, (seeing_all(own), network), side, vector_params=4 * hidden)
    other = _attention(hidden, heads, size, bias=True, key_bias=key_bias, cross=True)
    return Block(layers, hidden, (own, other, network), side, vector_params=6 * hidden)


def _bart(config: Config, name: str) -> ModelSpec:
    kind = config.text("model_type")
    family = FAMILIES[kind]
    if not config.flag("share_encoder_decoder_embeddings", True):
        raise UnsupportedArchitectureError(
            f"{config.where}: share_encoder_decoder_embeddings is false; only shared embeddings are known"
        )
    hidden, vocab = config.count("d_model"), config.count("vocab_size")
    endings = {"marian": ("MTModel", "Model"), "bart": (*TASKS, "ForSequenceClassification")}.get(kind, TASKS)
    head = task(config, endings, endings[0])
    norms = 2 * hidden * (family.embedding_norm + family.final_norm)
    blocks: tuple[Block, ...] = (
        norm(hidden, norms, "encoder"),
        _side(config, hidden, "encoder"),
        _side(config, hidden, "decoder"),
    )
    rows = config.count("max_position_embeddings", 1024)
    tables = tuple(
        Embedding("positions", rows + family.offset, hidden, stack=side)
        for side in ("encoder", "decoder")
        if family.positions
    )
    if head == "ForSequenceClassification":
        blocks = (*blocks, pooled(hidden, "decoder", ("dense", hidden, hidden), ("classifier", hidden, labels(config))))
    tied = config.flag("tie_word_embeddings", True)
    model = ModelSpec(
        name=name,
        architecture=architecture(config),
        hidden=hidden,
        vocab_size=vocab,
        blocks=blocks,
        embeddings=(*_tokens(vocab, hidden, tied=tied), *tables),
        head=() if head in ("Model", "ForSequenceClassification") else parts.lm_head(hidden, vocab, tied=tied),
        source=config.where,
        vector_params=norms,
        max_positions=rows,
    )
    return layers_apart(model)


def _tokens(vocab: int, hidden: int, *, tied: bool) -> tuple[Embedding, ...]:
    """The table both sides read; untied, each side has its own and the common one is held but never read."""
    sides = (
        Embedding("tokens", vocab, hidden, stack="encoder"),
        Embedding("tokens", vocab, hidden, tied=tied, stack="decoder"),
    )
    return sides if tied else (*sides, Embedding("unused", vocab, hidden, lookups=0.0))


def _whisper(config: Config, name: str) -> ModelSpec:
    hidden, vocab = config.count("d_model"), config.count("vocab_size")
    head = task(config, TASKS, TASKS[0])
    # The second convolution halves the frames: 30 s of audio are 3000 frames and 1500 positions.
    source, target = config.count("max_source_positions", 1500), config.count("max_target_positions", 448)
    model = ModelSpec(
        name=name,
        architecture=architecture(config),
        hidden=hidden,
        vocab_size=vocab,
        blocks=(
            _side(config, hidden, "encoder", key_bias=False),
            norm(hidden, 2 * hidden, "encoder"),
            _side(config, hidden, "decoder", key_bias=False),
        ),
        embeddings=(
            Embedding("positions", source, hidden, stack="encoder"),
            parts.token_embedding(vocab, hidden),
            Embedding("positions", target, hidden),
        ),
        head=() if head == "Model" else parts.lm_head(hidden, vocab, tied=config.flag("tie_word_embeddings", True)),
        source=config.where,
        vector_params=2 * hidden,
        convs=(
            Convolution("conv1", config.count("num_mel_bins", 80), hidden, 3, 2 * source, stack="encoder"),
            Convolution("conv2", hidden, hidden, 3, source, stack="encoder"),
        ),
        max_positions=target,
    )
    return layers_apart(model)


def _t5(config: Config, name: str) -> ModelSpec:
    """The T5 family. Relative-position biases belong to the first layer of each side; in UMT5 to every layer."""
    hidden, vocab = config.count("d_model"), config.count("vocab_size")
    heads, size = config.count("num_heads"), config.count("d_kv", 64)
    kind = task(config, (*TASKS, "EncoderModel", "WithLMHeadModel"), TASKS[0])
    umt5 = config.text("model_type") == "umt5"
    # mT5 and UMT5 gate; T5 says so from version 1.1 on.
    activation = config.text("feed_forward_proj", "relu" if config.text("model_type") == "t5" else "gated-gelu")
    network = parts.feed_forward(hidden, config.count("d_ff"), gated=activation.startswith("gated"))
    own = _attention(hidden, heads, size, bias=False)
    other = _attention(hidden, heads, size, bias=False, cross=True)
    bias = config.count("relative_attention_num_buckets", 32) * heads

    def side(name: str, layers: int) -> tuple[Block, ...]:
        def layer(biased: bool) -> Block:
            biases = bias if biased else 0
            if name == "encoder":
                mixer = replace(seeing_all(own), vector_params=biases)
                return Block(1, hidden, (mixer, network), name, vector_params=2 * hidden)
            mixer = replace(own, vector_params=biases)
            return Block(1, hidden, (mixer, other, network), name, vector_params=3 * hidden)

        return parts.stack((umt5 or index == 0 for index in range(parts.layer_count(layers, config.where))), layer)

    layers = config.count(config.named("num_layers", "num_hidden_layers"))
    alone = kind == "EncoderModel"
    blocks = (*side("encoder", layers), norm(hidden, hidden, "encoder"))
    if not alone:
        blocks += side("decoder", config.count("num_decoder_layers", layers))
    # Version 1.1 checkpoints hold a vocabulary projection of their own and say so.
    tied = config.flag("tie_word_embeddings", True)
    model = ModelSpec(
        name=name,
        architecture=architecture(config),
        hidden=hidden,
        vocab_size=vocab,
        blocks=blocks,
        embeddings=_tokens(vocab, hidden, tied=True)[: 1 if alone else 2],
        head=() if alone or kind == "Model" else parts.lm_head(hidden, vocab, tied=tied),
        source=config.where,
        vector_params=0 if alone else hidden,
        max_positions=config.count("n_positions", 512),
    )
    return layers_apart(model)


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    **dict.fromkeys(FAMILIES, _bart),
    **dict.fromkeys(("t5", "mt5", "umt5"), _t5),
    "whisper": _whisper,
}
