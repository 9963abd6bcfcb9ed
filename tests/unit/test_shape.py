"""A bare number of parameters becomes a model of just that size, shaped as published ones are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity.errors import InputError
from capacity.estimators.lowering import Tokens, lower, parameter_count
from capacity.importers.shape import infer_shape, plausible_shapes

if TYPE_CHECKING:
    from capacity.spec.model import ModelSpec

# Layers and hidden size of published dense decoders, by their parameters.
PUBLISHED = {
    "SmolLM2-135M": (134.5e6, 30, 576),
    "Qwen3-0.6B": (596e6, 28, 1024),
    "Llama-3.2-1B": (1.236e9, 16, 2048),
    "Gemma-2-2B": (2.614e9, 26, 2304),
    "Llama-3.2-3B": (3.213e9, 28, 3072),
    "Llama-2-7B": (6.738e9, 32, 4096),
    "Llama-3.1-8B": (8.030e9, 32, 4096),
    "Llama-2-13B": (13.016e9, 40, 5120),
    "Gemma-2-27B": (27.227e9, 46, 4608),
    "Qwen3-32B": (32.762e9, 64, 5120),
    "Llama-3.1-70B": (70.554e9, 80, 8192),
    "GPT-3": (174.6e9, 96, 12288),
    "Llama-3.1-405B": (405.853e9, 126, 16384),
}


def parameters(model: ModelSpec) -> float:
    return parameter_count(lower(model, Tokens()))


@given(st.floats(6.0, 13.0))
def test_every_shape_has_the_parameters_asked_for(power: float) -> None:
    wanted = 10.0**power if power < 13.0 else 1e13
    for model in plausible_shapes(wanted):
        assert parameters(model) == pytest.approx(wanted, rel=0.005)
        (block,) = model.blocks
        attention, network = block.sublayers
        assert attention.heads % attention.kv_heads == 0
        assert attention.heads * attention.key_size == model.hidden
        assert all(float(size).is_integer() for size in (block.count, model.hidden, network.width, attention.kv_heads))
        assert 2.0 <= network.width / model.hidden <= 4.5


def test_seven_billion_is_the_usual_seven_billion() -> None:
    model = infer_shape(7e9)
    attention = model.blocks[0].sublayers[0]
    assert (model.blocks[0].count, model.hidden, attention.heads, attention.key_size) == (32, 4096, 32, 128)
    assert attention.kv_heads == 8
    assert model.vocab_size == 128256


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_lie_within_the_styles(name: str) -> None:
    params, layers, hidden = PUBLISHED[name]
    shapes = plausible_shapes(params)
    widths = [shape.hidden for shape in shapes]
    depths = [shape.blocks[0].count for shape in shapes]
    # A third of freedom at either end: published shapes scatter, the very deep small ones most of all.
    assert min(widths) / 1.35 <= hidden <= max(widths) * 1.35
    assert min(depths) / 1.35 <= layers <= max(depths) * 2.2


def test_the_middle_follows_published_models() -> None:
    errors = [abs(math.log(infer_shape(params).hidden / hidden)) for params, _, hidden in PUBLISHED.values()]
    assert sorted(errors)[len(errors) // 2] < math.log(1.25)


def test_styles_differ_in_what_intervals_are_for() -> None:
    shapes = plausible_shapes(7e9)
    caches = [shape.blocks[0].count * shape.blocks[0].sublayers[0].cache_elements for shape in shapes]
    assert max(caches) >= 4.0 * caches[0]
    assert min(caches) <= caches[0] / 2.0
    assert len({shape.vocab_size for shape in shapes}) >= 3
    assert shapes[0] == infer_shape(7e9)


def test_every_guess_is_named() -> None:
    inferred = infer_shape(7e9).inferred
    assert inferred is not None
    for fact in ("layers", "hidden", "heads", "kv_heads", "ffn_width", "vocab_size", "tied_embeddings", "experts"):
        assert inferred[fact]


@pytest.mark.parametrize("params", [0.0, -7e9, 9.9e5, 1.1e13, math.inf, math.nan])
def test_absurd_sizes_are_refused(params: float) -> None:
    with pytest.raises(InputError, match="params is"):
        infer_shape(params)
