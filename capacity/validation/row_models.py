"""The model of a published run: a preset where name and widths agree, else built from the columns of the table."""

from __future__ import annotations

import re

from capacity.catalogue import load_model
from capacity.catalogue.entry import ids
from capacity.errors import CapacityError, InputError
from capacity.importers import parts
from capacity.importers.shape import infer_shape
from capacity.record import replace
from capacity.spec.model import Attention, Block, Embedding, Experts
from capacity.validation.tables import positive, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.spec.model import ModelSpec

GPT_VOCABULARY = 51200.0
# Words of a table that say how a model was trained, not which it is.
_HOW = re.compile(
    r"\b(lora|sft|clm|full|replica|proxy|moe|fine-?tune|squad|chat|instruct|dense|initial|final|hybrid|cut to.*)\b.*",
    re.IGNORECASE,
)
_models: dict[tuple[object, ...], tuple[ModelSpec, tuple[str, ...]]] = {}


def model_of(row: dict[str, Any]) -> tuple[ModelSpec, tuple[str, ...]]:
    """The model of a row and what of it was inferred; raises InputError where nothing says what it is."""
    columns = (
        "params_total", "n_layers", "hidden", "ffn_hidden", "n_heads", "n_kv_heads", "head_dim", "vocab",
        "n_experts", "experts_per_token", "seq_len",
    )  # fmt: skip
    facts = {name: positive(row, name) for name in columns}
    name = word(row, "model")
    latent = "MLA" in name or "MLA" in word(row, "notes")
    key = (name, latent, *facts.values())
    if key not in _models:
        _models[key] = _model(name, facts, latent=latent)
    return _models[key]


def _model(name: str, facts: dict[str, float | None], *, latent: bool) -> tuple[ModelSpec, tuple[str, ...]]:
    preset = _preset(name, facts)
    if preset is not None:
        return preset, ()
    inferred: list[str] = []
    layers, hidden = facts["n_layers"], facts["hidden"]
    params = facts["params_total"] or _size_in(name)
    if layers is None or hidden is None:
        if params is None:
            raise InputError(
                f"nothing says what model {name[:40] or 'this'!r} is: no layers and hidden size, no parameters"
            )
        try:
            return infer_shape(params), ("shape from its size",)
        except InputError as error:
            raise InputError(f"{name[:40]}: {error}") from None
    lower = name.lower()
    encoder = "bert" in lower
    heads = facts["n_heads"] or (facts["n_kv_heads"] if not facts["head_dim"] else hidden / facts["head_dim"])
    if heads is None:
        heads = max(round(hidden / (128.0 if hidden >= 2048.0 else 64.0)), 1.0)
        inferred.append("heads")
    # Latent attention keeps heads of 128 whatever the stream is (deepseek2024; Megatron-LM's default too).
    head = facts["head_dim"] or (128.0 if latent else hidden / heads)
    kv_heads = min(facts["n_kv_heads"] or heads, heads)
    gated_family = any(
        mark in lower
        for mark in (
            "llama",
            "mistral",
            "mixtral",
            "qwen",
            "gemma",
            "yi",
            "deepseek",
            "internlm",
            "baichuan",
            "olmo",
            "grok",
            "glm",
        )
    )
    vocab = facts["vocab"]
    if vocab is None:
        vocab = (
            250880.0 if "bloom" in lower else 30522.0 if encoder else 32000.0 if "llama" in lower else GPT_VOCABULARY
        )
        inferred.append("vocabulary")
    width = facts["ffn_hidden"]
    if width is None:
        width = round(8.0 / 3.0 * hidden / 256.0) * 256.0 if gated_family else 4.0 * hidden
        inferred.append("feed-forward width")
    experts, active = facts["n_experts"] or 0.0, facts["experts_per_token"]
    if experts > 1.0 and active is None:
        active = 2.0
        inferred.append("experts a token")

    def build(*, gated: bool, tied: bool) -> ModelSpec:
        bias = not gated
        attention: Attention = (
            parts.latent_attention(
                hidden, heads, kv_rank=512.0, nope_size=head, rope_size=64.0, value_size=head,
                q_rank=1536.0 if hidden >= 2048.0 else 0.0,
            )
            if latent
            else parts.attention(hidden, heads, kv_heads, head, bias=bias, causal=not encoder)
        )  # fmt: skip
        inner = (
            parts.experts(hidden, width, experts, active or 2.0, gated=gated)
            if experts > 1.0
            else parts.feed_forward(hidden, width, gated=gated, bias=bias)
        )
        block = Block(layers, hidden, (attention, inner), vector_params=(2.0 if gated else 4.0) * hidden)
        table = () if gated else (Embedding("positions", facts["seq_len"] or 2048.0, hidden),)
        return parts.decoder(
            name=name or "model", architecture="from a table", source="columns of the table", hidden=hidden,
            vocab_size=vocab, blocks=(block,), tied=tied, embeddings=table,
        )  # fmt: skip

    from capacity.estimators.lowering import Tokens, parameter_count
    from capacity.estimators.lowering import lower as lowered

    choices = [
        build(gated=gated, tied=tied) for gated in (gated_family, not gated_family) for tied in (not gated, gated)
    ]
    if params is None:
        inferred.append("gating")
        gated = gated_family or width % hidden != 0.0
        return build(gated=gated, tied=not gated), tuple(inferred)
    counted = facts["params_total"] or params
    return min(choices, key=lambda one: abs(parameter_count(lowered(one, Tokens())) / counted - 1.0)), tuple(inferred)


def _size_in(name: str) -> float | None:
    """Parameters a name states: 70e9 of `Llama-like 70B`; None for `8x7B`, which states no whole."""
    found = re.search(r"(?<![x\d.])(\d+(?:\.\d+)?)\s?([MBT])(?![A-Za-z])", name, re.IGNORECASE)
    if found is None:
        return None
    return float(found[1]) * {"m": 1e6, "b": 1e9, "t": 1e12}[found[2].lower()]


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _preset(name: str, facts: dict[str, float | None]) -> ModelSpec | None:
    """The preset a name means, cut to the row's layers; None where none has that name and the row's widths."""
    plain = _squeezed(_HOW.sub("", re.sub(r"\(.*?\)", "", name)))
    plain = re.sub(r"^t5v1.1", "flant5", plain)  # the same architecture
    if not plain:
        return None
    known = {_squeezed(key): key for key in ids("models", ())}
    near = sorted(
        (
            key
            for key in known
            if len(key) >= 5 and (plain.startswith(key) or key.startswith(plain)) and len(plain) >= 5
        ),
        key=lambda key: abs(len(key) - len(plain)),
    )
    sure = [known[plain]] if plain in known else []
    # A name cut short ("Nemotron 3 Super") is enough where it can only mean one.
    whole = [known[one] for one in near if len(plain) >= 8 and one.startswith(plain)]
    likely = [known[one] for one in near] if facts["hidden"] else whole if len(whole) == 1 else []
    for key in (*sure, *(one for one in likely if one not in sure)):
        try:
            model = load_model(key)
        except CapacityError:
            continue
        if _agrees(model, facts):
            return _with_vocabulary(_with_layers(model, facts["n_layers"]), facts["vocab"])
    return None


def _agrees(model: ModelSpec, facts: dict[str, float | None]) -> bool:
    """Whether a preset has the widths a row states."""
    layers = [layer for block in model.blocks if block.stack != "vision" for layer in block.sublayers]
    heads = {layer.heads for layer in layers if isinstance(layer, Attention)}
    experts = {layer.experts for layer in layers if isinstance(layer, Experts)}
    return (
        facts["hidden"] in (None, model.hidden)
        and (facts["n_heads"] is None or not heads or facts["n_heads"] in heads)
        and (facts["n_experts"] is None or facts["n_experts"] in (experts or {facts["n_experts"]}))
    )


def _with_layers(model: ModelSpec, layers: float | None) -> ModelSpec:
    """A model cut to its first layers, or with more of its last kind."""
    text = [block for block in model.blocks if block.stack in ("decoder", "encoder")]
    whole = sum(block.count for block in text)
    if layers is None or layers == whole or not text or any(block.stack == "encoder" for block in text):
        return model
    # Kinds that alternate are cut alike; a few first layers of another kind stay.
    first = [block for block in text[:-1] if block.count <= 4.0 and len(text) == 2]
    kept = sum(block.count for block in first)
    share = (layers - kept) / (whole - kept) if layers > kept else 0.0
    blocks = tuple(
        replace(
            block, count=block.count if block in first and share else max(block.count * (share or layers / whole), 0.0)
        )
        if block in text
        else block
        for block in model.blocks
        if block.stack != "mtp"
    )
    return replace(model, blocks=blocks)


def _with_vocabulary(model: ModelSpec, vocab: float | None) -> ModelSpec:
    if vocab is None or abs(vocab / (model.vocab_size or vocab) - 1.0) < 0.02:
        return model
    tables = tuple(
        replace(table, rows=vocab) if table.rows == model.vocab_size else table for table in model.embeddings
    )
    head = tuple(
        replace(linear, out_features=vocab) if linear.out_features == model.vocab_size else linear
        for linear in model.head
    )
    return replace(model, vocab_size=vocab, embeddings=tables, head=head)
