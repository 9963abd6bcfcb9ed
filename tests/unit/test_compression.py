"""`capacity compress`: methods, targets, and quality that is published or unknown."""

from __future__ import annotations

import json

import pytest

from capacity.catalogue import load_model
from capacity.cli import main
from capacity.errors import InputError
from capacity.estimators.compression import compress, low_rank, without_layers
from capacity.estimators.lowering import Tokens, lower, parameter_count


@pytest.fixture(scope="module")
def small():
    return {one.method: one for one in compress(model="llama-3.1-8b", device="jetson-orin-nano-super-8gb", memory=7e9)}


def test_sixteen_bits_of_eight_billion_do_not_fit_eight_gigabytes_and_four_do(small):
    assert not small["none"].fits
    assert "does not fit" in small["none"].missed
    assert small["q4_k_m"].reached
    assert small["q4_k_m"].memory.mid < 7e9


def test_fewer_bits_are_smaller_and_what_is_lost_is_published(small):
    sizes = [small[name].memory.mid for name in ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")]
    losses = [small[name].quality[0].mid for name in ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")]
    assert sizes == sorted(sizes, reverse=True)
    assert losses == sorted(losses)
    assert all(row.source and row.n >= 1 for name in ("q8_0", "int4-awq", "kv-int4") for row in small[name].quality)


def test_what_nobody_measured_is_unknown_and_never_nought(small):
    assert small["sparse-2-4"].quality is None
    assert small["none"].quality == ()
    # Llama 3 70B at Q4_K_M: 2.9674 against 2.8308 of F16 (the published table).
    assert small["q4_k_m"].quality[0].mid == pytest.approx(2.9674 / 2.8308 - 1.0, abs=1e-4)


def test_targets_are_told_by_name():
    found = {one.method: one for one in compress(model="llama-3.1-8b", device="rtx-4090", tokens_per_s=100.0)}
    assert found["none"].missed == ("speed",)
    assert found["q4_k_m"].reached
    order = [one.reached for one in compress(model="llama-3.1-8b", device="rtx-4090", tokens_per_s=100.0)]
    assert order == sorted(order, reverse=True)


def test_a_cache_in_fewer_bits_holds_more():
    found = {
        one.method: one.memory.mid
        for one in compress(model="llama-3.1-8b", device="rtx-4090", prompt_len=16000, concurrency=2)
    }
    assert found["kv-int4"] < found["kv-int8"] < found["none"]


def test_layers_left_out_take_their_parameters_along():
    model = load_model("llama-3.1-8b")
    pruned = without_layers(model, 0.75)
    block = 218_112_000  # parameters of one of the 32 layers
    whole, less = (parameter_count(lower(one, Tokens())) for one in (model, pruned))
    assert whole - less == pytest.approx(8 * block, rel=1e-3)


def test_a_student_is_priced_with_its_training():
    found = compress(model="llama-3.1-70b", device="h100-sxm", student="llama-3.1-8b", student_tokens=1e11)
    student = next(one for one in found if one.kind == "distillation")
    # 6 x 8e9 x 1e11 for the student and 2 x 70.6e9 x 1e11 for the teacher, at 0.4 of 989 TFLOP/s: 13,300 hours.
    assert "13,2" in student.note or "13,3" in student.note
    with pytest.raises(InputError, match="no smaller"):
        compress(model="llama-3.1-8b", student="llama-3.1-70b")


def test_the_command_says_it_in_eighty_columns_and_in_json(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compress", "--model", "llama-3.1-8b", "--device", "rtx-4060", "--memory", "8GB"]) == 0
    out = capsys.readouterr().out
    assert "q4_k_m" in out
    assert "unknown" in out
    assert "ppl +1.5/+6.5" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert main(["compress", "--model", "llama-3.1-8b", "--device", "rtx-4060", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {one["method"] for one in answer["methods"]} >= {"none", "int4-awq", "kv-int8"}
    assert main(["compress"]) == 2
    assert main(["compress", "--model", "llama-3.1-8b", "--memory", "8 parsecs"]) == 2


def test_thin_products_keep_their_share_of_the_weights_and_read_less(small):
    model = load_model("llama-3.1-8b")
    thin = low_rank(model, 0.8)
    outside = 2 * 128256 * 4096  # embedding and head stay whole
    whole, kept = (parameter_count(lower(one, Tokens())) - outside for one in (model, thin))
    assert kept == pytest.approx(0.8 * whole, rel=1e-3)
    assert small["int4-low-rank-20"].memory.mid < small["int4-awq"].memory.mid
    assert small["low-rank-20"].quality is None
