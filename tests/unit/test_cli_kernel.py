"""`capacity kernel`: one kernel, its interval and where its parameters are from."""

import json
import os
import subprocess
import sys

import pytest

import capacity
from capacity.catalogue import load_device
from capacity.errors import InputError


def asked(*words):
    command = [sys.executable, "-m", "capacity", "kernel", *words]
    wide = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=wide)


def test_devices_stand_below_each_other_with_where_they_are_from():
    done = asked(
        "gemm", "m=16", "n=8192", "k=8192", "--device", "h100-sxm", "--device", "h200", "--device", "mi300x", "--plain"
    )
    assert done.returncode == 0
    title, _, *rows, source = done.stdout.splitlines()
    assert title == "gemm: bfloat16, m 16, n 8,192, k 8,192"
    assert [row.split()[0] for row in rows] == ["h100-sxm", "h200-sxm", "mi300x"]
    assert [row.rpartition("  ")[2] for row in rows] == [
        "fitted on this device", "carried from a sibling", "carried from measured GPUs",
    ]  # fmt: skip
    assert "AIConfigurator" in source


def test_json_is_what_python_gives():
    told = json.loads(asked("decode", "batch=32", "context_len=8192", "n_heads=64", "n_kv_heads=8", "--json").stdout)
    here = capacity.kernel("decode", "h100-sxm", batch=32, context_len=8192, n_heads=64, n_kv_heads=8)
    assert told["schema"] == 1
    assert told["kernels"][0]["time_s"] == [here.time.low, here.time.mid, here.time.high]
    assert told["kernels"][0]["basis"] == here.basis == "fitted"


def test_a_running_model_finds_a_cold_cache():
    shape = {"m": 1, "n": 2048, "k": 4096}
    hot, cold = (capacity.kernel("gemm", "l40s", cold=one, **shape).time.mid for one in (False, True))
    assert cold > 2.0 * 2048 * 4096 / load_device("l40s").memory_bytes_per_s > hot


def test_what_is_not_said_is_usual():
    full = capacity.kernel("prefill", "b200", seq_len=4096, n_heads=32)
    assert full.shape["n_kv_heads"] == full.shape["n_heads"] == 32.0
    assert full.shape["window"] == 0.0
    assert capacity.kernel("prefill", "b200", seq_len=16384, n_heads=32, window=1024).time.mid < capacity.kernel(
        "prefill", "b200", seq_len=16384, n_heads=32
    ).time.mid  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no kernel is named"),
        (["gem", "m=1"], "did you mean gemm"),
        (["gemm", "m"], "is no NAME=VALUE"),
        (["gemm", "m=1", "n=2"], "k is missing"),
        (["gemm", "m=1", "n=2", "k=x"], "give a number"),
        (["gemm", "m=1", "n=2", "k=0"], "give 1 or more"),
        (["gemm", "m=1", "n=2", "k=3", "q=4"], "unknown part of a gemm"),
        (["gemm", "m=1", "n=2", "k=3", "--dtype", "fp2"], "no law of gemm knows it"),
        (["gemm", "m=1", "n=2", "k=3", "--device", "h1000"], "unknown device"),
        (["expert", "tokens=8", "hidden=64", "expert_ffn=64", "topk=2", "n_experts=8", "distribution=odd"], "power_law_ALPHA"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(words, says):
    done = asked(*words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_nan_is_no_shape():
    with pytest.raises(InputError, match="give 1 or more"):
        capacity.kernel("gemm", "h100-sxm", m=float("nan"), n=1, k=1)
