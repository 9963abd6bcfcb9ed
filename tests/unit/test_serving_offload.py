"""What a host keeps of a server, adapters that requests choose among, and halves of serving asked for alone."""

from __future__ import annotations

import pytest

from capacity.errors import InputError
from capacity.estimators.answer import estimate

DESK = {"model": "llama-3.1-70b", "device": "rtx-4090", "devices": 1, "precision": "q4_k_m"}
RACK = {"model": "llama-3.1-70b", "device": "h100-sxm", "devices": 1, "precision": "bf16", "concurrency": 4}


def served(**request):
    return estimate(mode="serve", **request).sections["serve"]


def middle(**request):
    return {name: quantity.mid for name, quantity in served(**request).quantities.items()}


def test_what_does_not_fit_fits_beside_a_host_and_is_slower():
    assert not served(**DESK).fits
    section = served(**DESK, offload="weights")
    assert section.fits
    assert section.binding == "the host's memory"
    # The rest of 42 GB is read by the host's cores at less than its 90 GB/s.
    kept = section.quantities["offloaded_per_node"].mid
    assert section.quantities["tpot"].mid > kept / 90e9
    assert section.quantities["memory_per_device"].mid < 24 * 2**30


def test_a_faster_host_makes_it_faster_and_more_on_it_slower():
    paces = [middle(**DESK, offload="weights", host_bandwidth=rate)["tpot"] for rate in (5e10, 1e11, 4e11)]
    assert paces == sorted(paces, reverse=True)
    shares = [middle(**DESK, offload="weights", host_share=share)["tpot"] for share in (0.6, 0.8, 1.0)]
    assert shares == sorted(shares)


def test_engines_that_do_not_compute_there_stream_through_the_link():
    section = served(**RACK, offload="weights", host_share=0.6)
    moved = section.quantities["offloaded_per_node"].mid
    assert moved == pytest.approx(0.6 * 141e9, rel=0.02)
    step = sum(section.breakdowns["time"].values())
    assert step == pytest.approx(moved / 2.5e10, rel=1e-6)  # computing hides behind the link
    slower = middle(**RACK, offload="weights", host_share=0.6, offload_to="nvme")
    assert slower["tpot"] > section.quantities["tpot"].mid


def test_experts_on_the_host_decode_as_fast_as_was_measured():
    """KTransformers 0.2, DeepSeek-R1 at Q4_K_M, an RTX 4090 beside Xeons: 8.7 tokens/s on one socket, 12 to 13.5 on two."""
    common = {"model": "deepseek-r1", "device": "rtx-4090", "precision": "q4_k_m", "engine": "llama.cpp"}
    paces = [
        1.0 / middle(**common, devices=1, offload="experts", prompt_len=500, host_bandwidth=sockets * 3.07e11)["tpot"]
        for sockets in (1, 2)
    ]
    assert paces[0] == pytest.approx(8.73, rel=0.15)
    assert paces[1] == pytest.approx(12.8, rel=0.15)


def test_a_cache_on_the_host_leaves_room_and_is_read_there():
    here, there = middle(**RACK | {"precision": "fp8"}), middle(**RACK | {"precision": "fp8"}, offload="cache")
    assert there["memory_per_device"] < here["memory_per_device"]
    assert there["tpot"] > here["tpot"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"offload": "optimizer"}, "offload"),
        ({"host_share": 0.5}, "--offload"),
        ({"offload": "cache", "host_share": 0.5}, "--offload weights"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(wrong, said):
    with pytest.raises(InputError, match=said):
        served(**DESK, **wrong)


def test_adapters_take_memory_and_time_by_how_many_requests_use():
    base = middle(model="llama-3.1-8b", concurrency=32)
    few, many = (middle(model="llama-3.1-8b", concurrency=32, adapters=count, lora_rank=16) for count in (4, 64))
    assert base["tpot"] < few["tpot"] < many["tpot"] < 1.5 * base["tpot"]
    # Rank 16 on the seven maps of 32 layers: 41.9 million weights, as peft counts them.
    assert many["memory_per_device"] - few["memory_per_device"] == pytest.approx(60 * 41.9e6 * 2, rel=0.01)
    wider = middle(model="llama-3.1-8b", concurrency=32, adapters=64, lora_rank=64)
    assert wider["tpot"] > many["tpot"]


def test_halves_of_serving_are_questions_of_the_whole():
    whole = middle(model="llama-3.1-8b", concurrency=8)
    half = {
        name: quantity.mid
        for name, quantity in estimate(mode="decode", model="llama-3.1-8b", concurrency=8)
        .sections["serve"]
        .quantities.items()
    }
    assert half == pytest.approx(whole)
    read = estimate(mode="prefill", model="llama-3.1-8b", prompt_len=4096).sections["serve"].quantities
    assert read["prefill_tokens_per_s"].mid == pytest.approx(
        middle(model="llama-3.1-8b", prompt_len=4096, concurrency=1)["prefill_tokens_per_s"], rel=0.01
    )
    with pytest.raises(InputError, match="--output-len"):
        estimate(mode="prefill", model="llama-3.1-8b", output_len=5)


def test_pictures_and_embeddings_by_the_joule():
    for model, item in (("vit-l-16", "image"), ("bert-large", "request")):
        found = middle(model=model, concurrency=64)
        assert found[f"{item}s_per_joule"] * found[f"energy_per_{item}"] == pytest.approx(1.0)
    assert served(model="vit-l-16", concurrency=64).binding == "compute"
