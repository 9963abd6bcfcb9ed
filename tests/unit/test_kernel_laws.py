"""Laws of single kernels: the same for floats and columns, never below physics, sane at the extremes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity.catalogue import list_devices, load_device
from capacity.laws.kernels.expert import expert_load
from capacity.laws.kernels.facts import facts_of
from capacity.laws.kernels.gemm import GEMM_DTYPES
from capacity.laws.kernels.parameters import SPECS
from capacity.laws.kernels.profile import FITTED, GENERIC, SIBLING, fitted_parameters
from capacity.laws.kernels.tables import NAMES, SHAPES, launch_s, regime, seconds
from capacity.record import replace

DEVICES = ("a100-sxm-80gb", "h100-sxm", "b200", "l40s")
SUBS = {
    "gemm": ("bfloat16", {"dtype": "bfloat16"}),
    "prefill": ("bfloat16/bfloat16", {"dtype": "bfloat16", "kv_dtype": "bfloat16"}),
    "decode": ("bfloat16", {"kv_dtype": "bfloat16"}),
    "expert": ("bfloat16", {"dtype": "bfloat16", "distribution": "power_law_1.2"}),
    "collective": ("all", {"collective": "all_reduce"}),
}
USUAL = {
    "gemm": {"m": 256.0, "n": 4096.0, "k": 4096.0},
    "prefill": {"batch": 2.0, "seq_len": 2048.0, "n_heads": 32.0, "n_kv_heads": 8.0, "head_dim": 128.0, "window": 0.0},
    "decode": {"batch": 16.0, "context_len": 4096.0, "n_heads": 32.0, "n_kv_heads": 8.0, "head_dim": 128.0, "window": 0.0},
    "expert": {"tokens": 256.0, "hidden": 4096.0, "expert_ffn": 1536.0, "topk": 8.0, "n_experts": 128.0, "tp": 1.0, "ep": 4.0},
    "collective": {"n_devices": 8.0, "message_bytes": 2.0**24},
}  # fmt: skip
GROWS = {
    "gemm": ("m", "n", "k"),
    "prefill": ("batch", "seq_len", "n_heads"),
    "decode": ("batch", "context_len"),
    "expert": ("tokens", "expert_ffn", "hidden"),
    "collective": ("message_bytes",),
}


def priced(op, device, **shape):
    sub, names = SUBS[op]
    facts = facts_of(load_device(device))
    fitted = fitted_parameters(load_device(device), op, sub)
    return seconds(op, facts, fitted.parameters, sub, {**USUAL[op], **names, **shape})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", SUBS)
def test_a_column_holds_what_floats_give(op, device):
    sub, names = SUBS[op]
    facts = facts_of(load_device(device))
    parameters = fitted_parameters(load_device(device), op, sub).parameters
    chance = np.random.default_rng(1)
    scale = 2.0 ** chance.integers(-1, 2, size=(len(USUAL[op]), 20))
    columns = {
        name: np.maximum(value * factor, 0.0 if name == "window" else 1.0)
        for (name, value), factor in zip(USUAL[op].items(), scale, strict=True)
    }
    words = {name: np.full(20, word, dtype=object) for name, word in names.items()}
    whole = seconds(op, facts, parameters, sub, {**columns, **words})
    for row in range(20):
        shape = {name: float(column[row]) for name, column in columns.items()}
        assert seconds(op, facts, parameters, sub, {**shape, **names}) == pytest.approx(whole[row], rel=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", SUBS)
def test_more_work_takes_longer(op, device):
    """Not at every step (a better tile or protocol may take over), but never by less for eight times the work."""
    for name in GROWS[op]:
        here = priced(op, device)
        assert priced(op, device, **{name: USUAL[op][name] * 8.0}) > here, name
        assert priced(op, device, **{name: USUAL[op][name] / 8.0}) < here * 1.02, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("op", "small", "large"),
    [
        ("gemm", {"m": 1.0, "n": 1.0, "k": 1.0}, {"m": 1e5, "n": 1e5, "k": 1e5}),
        ("prefill", {"batch": 1.0, "seq_len": 1.0}, {"batch": 1.0, "seq_len": 1e5}),
        ("decode", {"batch": 1.0, "context_len": 1.0}, {"batch": 1e5, "context_len": 1e5}),
        ("expert", {"tokens": 1.0}, {"tokens": 1e5}),
        ("collective", {"message_bytes": 1.0}, {"message_bytes": 1e11}),
    ],
)
def test_extremes_are_launches_and_rates(op, device, small, large):
    sub, _ = SUBS[op]
    facts = facts_of(load_device(device))
    parameters = fitted_parameters(load_device(device), op, sub).parameters
    least, most = priced(op, device, **small), priced(op, device, **large)
    assert 0.3 * launch_s(op, facts, parameters) < least < 500e-6
    assert math.isfinite(most)
    assert most > 50.0 * least


@pytest.mark.parametrize("device", DEVICES)
def test_large_products_and_reads_stay_below_the_datasheet(device):
    facts = facts_of(load_device(device))
    size = 16384.0
    assert priced("gemm", device, m=size, n=size, k=size) > 2.0 * size**3 / facts.peak(16)
    shape = {"batch": 64.0, "context_len": 32768.0}
    cached = 64.0 * 32768.0 * 2.0 * 8.0 * 128.0 * 2.0
    assert priced("decode", device, **shape) > 0.9 * cached / facts.memory_bytes_per_s
    assert priced("prefill", device, seq_len=16384.0) > 0.5 * 4.0 * 2.0 * 32.0 * 128.0 * 16384.0**2 / facts.peak(16)


@given(
    m=st.integers(1, 100_000), n=st.integers(1, 100_000), k=st.integers(1, 100_000),
    dtype=st.sampled_from(sorted(GEMM_DTYPES)), device=st.sampled_from(["h100-sxm", "mi300x", "tpu-v5e", "raspberry-pi-5"]),
)  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_any_product_on_any_device_has_an_interval(m, n, k, dtype, device):
    known = load_device(device)
    facts = facts_of(known)
    fitted = fitted_parameters(known, "gemm", dtype)
    shape = {"m": float(m), "n": float(n), "k": float(k)}
    mid = seconds("gemm", facts, fitted.parameters, dtype, {**shape, "dtype": dtype})
    low, high = fitted.interval(mid, regime(mid, launch_s("gemm", facts, fitted.parameters)), fitted.outside_of(shape))
    assert 0.0 < low < mid < high < math.inf


def test_faster_memory_and_more_peak_never_slow_a_kernel():
    """An H200 is an H100 with its own memory: its decoding gains, its products do not lose."""
    assert priced("decode", "h200-sxm") < priced("decode", "h100-sxm")
    assert priced("gemm", "h200-sxm", m=1.0) <= priced("gemm", "h100-sxm", m=1.0)
    device = load_device("h100-sxm")
    facts = facts_of(device)
    parameters = fitted_parameters(device, "gemm", "bfloat16").parameters
    shape = {"m": 4096.0, "n": 4096.0, "k": 4096.0, "dtype": "bfloat16"}
    here = seconds("gemm", facts, parameters, "bfloat16", shape)
    for name in ("peak16_flop_per_s", "memory_bytes_per_s", "clock_hz"):
        better = replace(facts, **{name: getattr(facts, name) * 2.0})
        assert seconds("gemm", better, parameters, "bfloat16", shape) <= here * 1.001, name


def test_nothing_of_the_last_call_is_in_a_cold_cache():
    facts = facts_of(load_device("l40s"))
    parameters = fitted_parameters(load_device("l40s"), "gemm", "bfloat16").parameters
    shape = {"m": 1.0, "n": 4096.0, "k": 4096.0, "dtype": "bfloat16"}
    bytes_read = 2.0 * 4096.0 * 4096.0
    hot, cold = (seconds("gemm", one, parameters, "bfloat16", shape) for one in (facts, facts.cold()))
    assert cold > hot
    assert cold > bytes_read / facts.memory_bytes_per_s


def test_parameters_come_from_the_nearest_place_and_intervals_widen_with_distance():
    widths = {}
    for device, basis in (("h100-sxm", FITTED), ("h200-sxm", SIBLING), ("b300", SIBLING), ("mi300x", GENERIC)):
        fitted = fitted_parameters(load_device(device), "gemm", "bfloat16")
        assert fitted.basis == basis
        low, high = fitted.interval(1.0, "large")
        widths[device] = high / low
    assert widths["h100-sxm"] <= widths["h200-sxm"] < widths["mi300x"]
    # Workstation Blackwell has Ada's multiprocessors, not the data centre's, and the errors of a stranger.
    stranger, kin = (fitted_parameters(load_device(one), "gemm", "bfloat16") for one in ("rtx-5090", "l40s"))
    assert stranger.parameters == kin.parameters
    assert stranger.residuals != kin.residuals


def test_shapes_beyond_the_measured_ones_widen_the_interval():
    fitted = fitted_parameters(load_device("h100-sxm"), "gemm", "bfloat16")
    inside = {name: math.sqrt(low * high) for name, (low, high) in fitted.valid.items()}
    outside = {name: high * 8.0 for name, (_, high) in fitted.valid.items()}
    assert fitted.outside_of(inside) == 1.0
    assert 1.0 < fitted.outside_of({**inside, "k": outside["k"]}) < fitted.outside_of(outside) <= 2.0


@pytest.mark.parametrize("device", [device.id for device in list_devices()])
def test_every_device_of_the_catalogue_prices_every_op(device):
    known = load_device(device)
    facts = facts_of(known)
    for op, (sub, names) in SUBS.items():
        fitted = fitted_parameters(known, op, sub)
        assert set(fitted.parameters) <= set(SPECS[op])
        assert 0.0 < seconds(op, facts, fitted.parameters, sub, {**USUAL[op], **names}) < 1e4, op


def test_the_fullest_rank_holds_more_than_its_share_and_no_more_than_all():
    for tokens in (1.0, 64.0, 4096.0):
        pairs, active, rows = expert_load(tokens, 8.0, 128.0, 8.0, 1.2, False)
        assert tokens * 8.0 / 8.0 <= pairs <= tokens * 8.0
        assert 1.0 <= active <= 16.0
        assert all(row >= active for row in rows)
        even, _, _ = expert_load(tokens, 8.0, 128.0, 8.0, 1.2, True)
        assert even <= pairs


def test_kernel_names_of_tables_are_the_law_s():
    assert set(NAMES) == set(SHAPES) == set(SPECS) == set(SUBS)
