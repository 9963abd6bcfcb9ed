"""This machine's laws: known ones are recovered from kernels, price whole workloads, and reach `capacity estimate`."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
from torch import nn

import capacity
from capacity.calibration import local as calibration
from capacity.calibration.machine import write_machine
from capacity.catalogue.own import laws_path, own_folder
from capacity.cli import main
from capacity.errors import FileFormatError, InputError
from capacity.laws.local import (
    GRAIN,
    MACHINE,
    LocalLaws,
    from_document,
    fused,
    run_terms,
    shared_by,
    terms,
    to_document,
)
from capacity.measurement.case import FULL, Case, Machine
from capacity.measurement.measured import Measured, held_out, threads_of
from capacity.measurement.registry import KERNELS, cases
from capacity.measurement.residency import Caches
from capacity.measurement.store import Store
from capacity.measurement.tracing import trace_case, trace_module
from capacity.spec.measurement import Measurement, Sample
from capacity.spec.trace import TracedOp
from capacity.validation import validate
from capacity.validation.local import read_laws

MIB = 2**20
FACTS = {
    "cpu": "Known processor", "torch": "2", "threads": 1, "device": "cpu", "caches_bytes": {"L2": MIB, "L3": 32 * MIB},
    "memory_bytes": 16 * 2**30, "measured_clock_hz": 3e9, "seen": "2026-01-02T03:04:05+00:00", "plan": {},
}  # fmt: skip


def truth(op):
    """Seconds of one call on a machine whose laws are known."""
    half = 0.5 if op.dtype == "bf16" else 1.0
    seconds = 2e-6 + (op.near_bytes * 0.2 + op.far_bytes) / 40e9 + op.fresh_bytes / 2e9
    if op.kind in ("product", "convolution", "attention", "recurrent"):
        rate = {"product": 100e9, "convolution": 150e9, "attention": 30e9, "recurrent": 50e9}[op.kind]
        return seconds + op.flop / rate * half + op.batch * op.m * op.n * 1e-10
    return seconds + (0.0 if op.kind == "view" else op.elements * 2e-10)


def store_of(path, chosen, random):
    with Store(str(path)) as store:
        store.add_environment("e", FACTS)
        for case in chosen:
            trace = trace_case(case, Machine(), Caches(MIB, 32 * MIB))
            parts = {"": 1e-7}
            for op in trace.ops:
                parts[op.phase] = parts.get(op.phase, 0.0) + op.calls * truth(op)
            samples = []
            for _ in range(6):
                noise = random.lognormvariate(0.0, 0.01)
                samples.append(
                    Sample(
                        wall_s=sum(parts.values()) * noise,
                        loops=1,
                        waited_s=0.0,
                        faults=round(sum(op.calls * op.fresh_bytes for op in trace.ops) / 4096),
                        parts_s={name: value * noise for name, value in parts.items() if name},
                    )
                )
            flop = sum(op.calls * op.flop for op in trace.ops)
            store.add(
                Measurement(
                    case=case.name,
                    kernel=case.kernel,
                    parameters=case.parameters,
                    device="cpu",
                    round=0,
                    status="ok",
                    environment="e",
                    started="now",
                    flop=flop,
                    moved_bytes=case.parameters.get("KiB", 0) * 1024.0 * 2 or 1e6,
                    samples=tuple(samples),
                    peak_memory_bytes=int(300 * MIB + trace.peak_bytes),
                    resting_memory_bytes=300 * MIB,
                    settings={"threads": 1},
                )
            )


TEXT = {"layers": 2, "width": 128, "vocabulary": 512, "length": 64, "batch": 4}
WORKLOADS = [
    Case("training", {"family": family, **shape, "dtype": "fp32", "optimizer": "adamw-fused"})
    for family, shape in (
        ("gpt", TEXT),
        ("gpt", TEXT | {"width": 256, "layers": 3}),
        ("bert", TEXT),
        ("bert", TEXT | {"batch": 16}),
        ("vit", {"layers": 2, "width": 128, "side": 64, "patch": 8, "batch": 4}),
        ("resnet", {"blocks": [1, 1], "width": 64, "side": 64, "batch": 8}),
        ("mlp", {"widths": [1000, 500, 250, 100, 1], "batch": 100}),
        ("mlp", {"widths": [512, 2048, 10], "batch": 256}),
    )
]


def small(case):
    """A kernel of which the trace takes no time and no memory."""
    sizes = case.parameters
    if case.kernel == "rowwise":
        return sizes["dtype"] == "fp32" and not sizes["cold"] and sizes["columns"] < 9000
    return case.kernel != "gemm" or sizes["dtype"] in ("fp32", "bf16")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    names = [
        "gemm",
        "memory",
        "attention",
        "rowwise",
        "convolution/fp32*",
        "optimizer/adamw-fused*",
        "gemm-batched",
        "first-touch",
    ]
    chosen = [case for case in cases(FULL, Machine(), names) if small(case)]
    random = Random(5)
    path = tmp_path_factory.mktemp("store") / "bench.jsonl"
    store_of(path, chosen + WORKLOADS, random)
    return str(path)


@pytest.fixture(scope="module")
def fitted(store):
    return calibration.calibrate(store)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPACITY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_laws_that_are_known_are_recovered(fitted):
    laws, fit = fitted
    off = sorted(abs(value) for value in fit["residuals"].values())
    assert fit["kernels"] > 200
    assert off[len(off) // 2] < 0.02
    assert off[int(0.9 * len(off))] < 0.06
    assert laws.seconds["product fp32"]["m n k"] == pytest.approx(2.0 / 100e9, rel=0.1)
    assert laws.seconds["product bf16"]["m n k"] == pytest.approx(1.0 / 100e9, rel=0.1)
    assert laws.seconds[MACHINE]["fresh_bytes"] == pytest.approx(1.0 / 2e9, rel=0.2)


def test_workloads_never_fitted_are_predicted_from_kernels(store, fitted, home):
    write_machine(fitted[0], store)
    scores = validate("local", store)
    assert scores["overall"]["n"] == scores["overall"]["priced"] == len(WORKLOADS)
    assert scores["overall"]["mdape"] < 0.05
    assert scores["overall"]["baseline_mdape"] > 3.0 * scores["overall"]["mdape"]
    metrics = {group["metric"]: group for group in scores["groups"] if not group["by"]}
    assert set(metrics) == {"step_time_s", "phase_time_s", "peak_memory_bytes"}
    assert metrics["peak_memory_bytes"]["mdape"] < 1e-6
    rows = scores["rows"]
    assert (rows["low"] <= rows["mid"]).all()
    assert (rows["mid"] <= rows["high"]).all()


def test_a_family_is_given_the_errors_of_the_others(store, fitted, home):
    """Twice as slow a family widens the intervals of all but itself."""
    from capacity.validation.local import _intervals, predict

    rows = predict(fitted[0], Measured(store))
    steps = rows[rows["metric"] == "step_time_s"].copy()
    steps.loc[steps["family"] == "mlp", "measured"] *= 2.0
    low, high = _intervals(steps)
    ratio = high / steps["mid"].to_numpy()
    own = (steps["family"] == "mlp").to_numpy()
    assert (ratio[own] < 1.3).all()
    assert (ratio[~own] > 1.8).all()
    assert (low <= steps["mid"].to_numpy()).all()


def test_laws_survive_their_file(store, fitted, home):
    laws = fitted[0]
    assert from_document(json.loads(json.dumps(to_document(laws))), "x") == laws
    write_machine(laws, store)
    assert read_laws() == laws
    assert laws_path().startswith(str(home))
    assert own_folder() == str(home)


def test_an_op_never_measured_takes_the_pool_and_a_kind_never_measured_is_named(fitted):
    laws = fitted[0]
    known = laws.op_s(TracedOp("erfinv", "pointwise", "fp32", elements=1e6))
    assert 1e-5 < known < 1e-2
    assert laws.op_s(TracedOp("x", "recurrent", "fp32", flop=1e9)) is None
    assert laws.op_s(TracedOp("mm", "product", "fp16", m=256, n=256, k=256, layout="nt", flop=2.0 * 256**3)) > 0.0


def test_terms_are_physical():
    op = TracedOp("mm", "product", "fp32", m=64, n=32, k=16, layout="nt", flop=2.0 * 64 * 32 * 16, far_bytes=100.0)
    found = terms(op)
    assert found["product fp32", "m n k"] == 64 * 32 * 16
    assert found["product fp32", "n k t"] == 32 * 16
    assert found["product fp32", "far_bytes"] == 100.0
    added = TracedOp("add", "pointwise", "fp32", elements=10.0, far_bytes=100.0, nodes=1.0)
    assert terms(added)[MACHINE, "far_bytes"] == 100.0
    assert terms(added)[MACHINE, "nodes"] == 1.0
    sparse = TracedOp("linear-csr", "product", "fp32", m=64, n=32, k=16, flop=0.1 * 2.0 * 64 * 32 * 16)
    assert terms(sparse)["linear-csr fp32", "m n k"] == pytest.approx(0.1 * 64 * 32 * 16)


def test_estimate_uses_this_machine(store, fitted, home, capsys):
    assert main(["estimate", "--params", "2e7", "--device", "this-machine", "--mode", "train"]) == 2
    assert "capacity calibrate local" in capsys.readouterr().err
    write_machine(fitted[0], store)
    assert (
        main(["estimate", "--params", "2e7", "--device", "this-machine", "--mode", "train", "--batch", "4", "--json"])
        == 0
    )
    answer = json.loads(capsys.readouterr().out)
    assert "Known processor" in json.dumps(answer)


def test_a_network_of_ones_own_is_priced_by_this_machines_laws(store, fitted, home):
    write_machine(fitted[0], store)
    network = nn.Sequential(nn.Linear(1000, 512), nn.GELU(), nn.Linear(512, 512), nn.LayerNorm(512), nn.Linear(512, 10))
    batch = torch.empty(128, 1000)
    asked = {"module": network, "example_inputs": batch, "device": "this-machine"}
    answer = capacity.estimate(**asked, precision="fp32", optimizer="sgd")
    trace = trace_module(
        lambda: network,
        Caches(MIB, 32 * MIB),
        inputs=lambda: (torch.empty(128, 1000),),
        loss=lambda result: result.sum(),
        optimizer=lambda weights: torch.optim.SGD(weights, lr=1e-3),
    )
    known = sum(op.calls * truth(op) for op in trace.ops if op.kind not in ("python", "view"))
    step = answer.sections["train"].quantities["step_time"]
    assert step.mid == pytest.approx(known, rel=0.06)
    assert step.low < known < step.high
    assert sum(answer.sections["train"].breakdowns["time"].values()) == pytest.approx(step.mid)
    # Weights stored in 16 bits multiply twice as fast here; a compiler spares calls.
    infer = {form: capacity.estimate(**asked, precision=form, mode="infer") for form in ("fp32", "bf16")}
    times = {form: one.sections["infer"].breakdowns["time"] for form, one in infer.items()}
    assert times["bf16"]["products"] < 0.75 * times["fp32"]["products"]
    compiled = capacity.estimate(**asked, precision="fp32", mode="infer", compiled=True)
    assert (
        compiled.sections["infer"].quantities["latency"].mid < infer["fp32"].sections["infer"].quantities["latency"].mid
    )
    with pytest.raises(InputError, match="lion"):
        capacity.estimate(**asked, optimizer="lion", mode="train")


def test_commands_calibrate_and_validate(store, home, capsys):
    assert main(["calibrate", "local", "--data", store]) == 0
    assert "kernels fitted" in capsys.readouterr().out
    assert main(["validate", "local", "--data", store, "--by", "family", "--plain"]) == 0
    assert "gpt step_time_s" in capsys.readouterr().out


def test_what_is_missing_is_said(store, tmp_path, home, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(InputError, match="capacity bench"):
        calibration.calibrate(str(empty))
    with pytest.raises(InputError, match="no measurement that succeeded"):
        validate("local", str(empty))
    with pytest.raises(InputError, match="capacity calibrate local"):
        validate("local", store)
    home.mkdir()
    (home / "this-machine.json").write_text('{"schema": 7}')
    with pytest.raises(FileFormatError, match="again"):
        validate("local", store)
    assert main(["calibrate", "lokal"]) == 2
    assert "local" in capsys.readouterr().err


def test_the_fit_shrugs_off_a_kernel_on_another_path():
    random = Random(2)
    rows = [{("a", "calls"): 1.0, ("a", "elements"): 10.0 ** random.uniform(2, 7)} for _ in range(40)]
    seconds = [2e-6 + row["a", "elements"] * 3e-10 for row in rows]
    seconds[7] *= 20.0
    found, predicted = calibration.fit(rows, seconds)
    assert found["a", "elements"] == pytest.approx(3e-10, rel=0.02)
    assert found["a", "calls"] == pytest.approx(2e-6, rel=0.1)
    assert predicted[7] < 0.1 * seconds[7]


def test_every_workload_that_is_predicted_is_of_a_kind_that_is_not_fitted():
    assert {KERNELS[case.kernel].kind for case in WORKLOADS} == {"training"}
    assert isinstance(LocalLaws, type)


def test_a_call_is_divided_among_threads_from_torchs_grain_on_and_pays_a_fork():
    small = TracedOp("add", "pointwise", "fp32", elements=GRAIN)
    large = TracedOp("add", "pointwise", "fp32", elements=4.0 * GRAIN, far_bytes=8.0)
    assert (shared_by(small, 4), shared_by(large, 4), shared_by(large, 2), shared_by(large, 1)) == (1.0, 4.0, 2.0, 1.0)
    assert terms(small, 4) == terms(small)
    found = terms(large, 4)
    assert found["add fp32", "elements"] == GRAIN
    assert found["add fp32", "calls"] == 1.0
    assert found[MACHINE, "far_bytes"] == 8.0  # memory gives all threads what it gives one
    assert found[MACHINE, "forks"] == 1.0
    lists = TracedOp("_foreach_add_", "other", "fp32", elements=8.0 * GRAIN, m=8.0)
    assert shared_by(lists, 2) == 1.0  # each tensor by itself
    assert shared_by(TracedOp("mm", "product", "fp32", flop=1e9), 2) == 2.0
    assert shared_by(TracedOp("mm", "product", "fp32", flop=1e4), 2) == 1.0


def test_kernels_of_both_numbers_of_threads_are_fitted_together(tmp_path):
    """Times of a machine of which forks and grain are known: laws of either number of threads are those of both."""
    random, fork = Random(8), 20e-6
    path = str(tmp_path / "two.jsonl")
    chosen = [case for case in cases(FULL, Machine(), ["gemm/fp32*", "rowwise/*-fp32-*", "memory"]) if small(case)]
    with Store(path) as store:
        for threads in (1, 2):
            key = f"e{threads}"
            store.add_environment(key, FACTS | {"threads": threads, "plan": {"threads": threads}})
            for case in chosen:
                trace = trace_case(
                    case, Machine(threads=threads, cache_bytes=32.0 * MIB), Caches(MIB * threads, 32 * MIB)
                )
                seconds = 1e-7
                for op in trace.ops:
                    sharers = shared_by(op, threads)
                    rate = 1.0 / 100e9 if op.kind == "product" else 0.0
                    work = op.flop * rate + (0.0 if op.kind in ("view", "product") else op.elements * 2e-10)
                    far = op.far_bytes / 40e9 + op.fresh_bytes / 2e9
                    seconds += op.calls * (2e-6 + work / sharers + far + (fork if sharers > 1 else 0.0))
                noise = random.lognormvariate(0.0, 0.01)
                faults = round(sum(op.calls * op.fresh_bytes for op in trace.ops) / 4096)
                sample = Sample(wall_s=seconds * noise, loops=1, waited_s=0.0, faults=faults)
                store.add(
                    Measurement(
                        case=case.name, kernel=case.kernel, parameters=case.parameters, device="cpu", round=0, status="ok",
                        environment=key, started="now", samples=(sample,) * 6, settings={"threads": threads},
                    )
                )  # fmt: skip
    assert threads_of(path) == [1, 2]
    assert (Measured(path).threads, Measured(path, 1).threads) == (2, 1)
    laws, fit = calibration.calibrate(path)
    assert laws.seconds[MACHINE]["forks"] == pytest.approx(fork, rel=0.2)
    two = sorted(abs(value) for name, value in fit["residuals"].items() if "@2" in name)
    assert len(two) == len(fit["residuals"]) / 2
    assert two[len(two) // 2] < 0.03


def test_ranks_are_lowered_with_their_collectives_and_copies():
    shape = {
        "family": "mlp",
        "widths": [1024, 2048, 2048, 10],
        "batch": 8,
        "dtype": "fp32",
        "optimizer": "adamw-fused",
        "ranks": 2,
    }
    weights = 4.0 * (1024 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 10 + 10)

    def moved(way):
        ops = trace_case(Case("distributed", shape | {"way": way}), Machine(), Caches()).ops
        found = {}
        for op in ops:
            if op.kind == "collective":
                found.setdefault((op.name, op.phase), []).extend([op.elements] * int(op.calls))
        return found

    assert moved("alone") == {}
    (buckets,) = moved("ddp").values()
    assert sum(buckets) == weights
    assert 2 <= len(buckets) <= 3  # a first one of a MiB, the rest in 25 MiB
    assert moved("fsdp") == {
        ("all-gather", "forward"): [weights], ("all-gather", "backward"): [weights], ("reduce-scatter", "backward"): [weights],
    }  # fmt: skip


def test_collectives_have_latency_and_bandwidth_and_a_size_is_kept_for_validation():
    held = [case for case in cases(FULL, Machine(), ["collective"]) if held_out(case)]
    assert {case.parameters["KiB"] for case in held} == {1024}
    assert {case.parameters["op"] for case in held} == {
        "all-reduce",
        "all-gather",
        "reduce-scatter",
        "broadcast",
        "all-to-all",
    }
    (op,) = trace_case(held[0], Machine(), Caches()).ops
    assert terms(op) == {(op.name, "calls"): 1.0, (op.name, "bytes"): 1024.0 * 1024.0}


def test_a_compiled_step_has_fewer_calls_and_the_same_arithmetic():
    shape = {
        "family": "vit",
        "layers": 1,
        "width": 64,
        "side": 32,
        "patch": 8,
        "batch": 2,
        "dtype": "fp32",
        "optimizer": "adamw-fused",
    }
    eager = trace_case(Case("training", shape | {"compiled": True}), Machine(), Caches())
    compiled = fused(eager)
    before, after = run_terms(eager), run_terms(compiled)
    assert sum(op.flop * op.calls for op in eager.ops) == sum(op.flop * op.calls for op in compiled.ops)
    assert after["gelu fp32", "elements"] == before["gelu fp32", "elements"]
    assert after["gelu fp32", "calls"] == 0.0 < before["gelu fp32", "calls"]
    assert ("module", "calls") in before
    assert ("module", "calls") not in after
    assert after["_fused_adamw_ fp32", "calls"] == before["_fused_adamw_ fp32", "calls"]
