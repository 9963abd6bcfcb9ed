"""Recurrences: small cases counted by hand, limits, and what one decode step costs."""

from __future__ import annotations

import pytest

from capacity.errors import InputError
from capacity.formulas import recurrence


def test_chunks_fill_up():
    assert [recurrence.chunks(queries, 64.0) for queries in (1.0, 64.0, 65.0)] == [1.0, 1.0, 2.0]


def test_delta_rules_of_one_chunk_by_hand():
    chunk, keys, values = 4, 3, 5
    inside = 2 * chunk * chunk * keys + chunk * chunk * values
    states = 3 * chunk * keys * values
    assert recurrence.gated_delta_scan_flop(1.0, 4.0, 1.0, keys, values, chunk) == 2 * (inside + states)
    inside = chunk * chunk * (keys + values) + chunk * chunk * values
    assert recurrence.kda_scan_flop(1.0, 4.0, 1.0, keys, values, chunk) == 2 * (inside + states)


def test_mamba2_sums_states_over_all_chunks_before():
    # Two chunks of one token, one number each way: 2 x (1 + 1 + 1 + 1) inside, 3 x 3 between.
    assert recurrence.mamba2_scan_flop(1.0, 2.0, 1.0, 1.0, 1.0, 1.0) == 2 * (8 + 9)


@pytest.mark.parametrize(("queries", "squares"), [(4.0, 16), (5.0, 17), (8.0, 32), (3.0, 9)])
def test_lightning_does_not_pad_its_last_chunk(queries, squares):
    expected = 2 * (squares * (2 + 3) + 2 * queries * 2 * 3)
    assert recurrence.lightning_scan_flop(1.0, queries, 1.0, 2.0, 3.0, 4.0) == expected


@pytest.mark.parametrize("form", sorted(recurrence.STEP_FLOP))
def test_one_token_is_one_step_of_the_recurrent_form(form):
    flop = recurrence.counted_scan_flop(form, 3.0, 1.0, 4.0, 16.0, 8.0, 1.0, 64.0)
    assert flop == 3 * 4 * 16 * 8 * recurrence.STEP_FLOP[form]


@pytest.mark.parametrize("form", ["gated_delta", "kda", "mamba2", "lightning"])
def test_long_sequences_cost_the_same_a_token(form):
    def each(queries: float) -> float:
        return recurrence.counted_scan_flop(form, 1.0, queries, 8.0, 128.0, 64.0, 1.0, 64.0) / queries

    # Mamba-2's reference sums chunk states pairwise, which grows; the others do not.
    grows = form == "mamba2"
    assert (each(65536.0) > 1.1 * each(4096.0)) == grows
    assert (each(65536.0) == pytest.approx(each(4096.0))) != grows


def test_a_step_reads_and_writes_each_state_once():
    # Qwen3-Next: 32 heads of 128 x 128 in 32 bits, 8192 channels that keep 3 inputs in 16 bits.
    moved = recurrence.step_state_traffic_bytes(1.0, 32.0, 128.0, 128.0, 8192.0, 4.0, 4.0, 2.0)
    assert moved == 2 * (32 * 128 * 128 * 4 + 8192 * 3 * 2)


def test_short_convolution_counts_its_padding():
    assert recurrence.short_convolution_flop(2.0, 10.0, 6.0, 4.0) == 2 * 2 * (10 + 3) * 6 * 4


def test_unknown_recurrence_is_refused():
    with pytest.raises(InputError, match="known are"):
        recurrence.counted_scan_flop("hyena", 1.0, 8.0, 1.0, 1.0, 1.0, 1.0, 64.0)
