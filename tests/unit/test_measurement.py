"""The ruler: clock, samples, isolation, store, suite, telemetry, check."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from random import Random

import pytest
from fake_nvml import FakeNvml

from capacity.errors import FileFormatError, InputError, UnknownNameError
from capacity.measurement import check, environment, statistics, telemetry
from capacity.measurement.case import FULL, QUICK, Case, Machine, Work
from capacity.measurement.clock import Clock
from capacity.measurement.isolation import run_isolated, server
from capacity.measurement.registry import KERNELS, cases
from capacity.measurement.sampling import Effort, visit
from capacity.measurement.store import Store, read
from capacity.measurement.suite import Plan, outstanding, run_suite
from capacity.record import replace
from capacity.spec.measurement import Measurement, Sample

SHORT = Effort(budget_s=0.05, warm_up_s=0.01, sample_s=0.0005)


def reading(seconds, waited=0.0, **more):
    return Sample(wall_s=seconds, loops=1, waited_s=waited, **more)


def measured(case="gemm/x", samples=(), **more):
    fields = {
        "kernel": "gemm", "parameters": {}, "device": "cpu", "round": 0, "status": "ok", "environment": "e", "started": "now",
    }  # fmt: skip
    return Measurement(case=case, samples=tuple(samples), **(fields | more))


# clock and samples


def test_a_sample_is_as_long_as_what_it_times():
    sample = Clock().sample(lambda: time.sleep(0.01), loops=3)
    assert 0.03 <= sample.wall_s < 0.3
    assert sample.loops == 3


def test_phases_add_up_to_the_sample():
    sample = Clock().phased_sample([("long", lambda: time.sleep(0.02)), ("short", lambda: time.sleep(0.005))])
    assert sample.parts_s["long"] > sample.parts_s["short"] >= 0.005
    assert sum(sample.parts_s.values()) == pytest.approx(sample.wall_s)


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="Linux counts waiting for a core")
def test_waiting_for_a_core_is_seen():
    """Two processes on one core: each must wait for about half of the time."""
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    rival = subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"])
    try:
        os.sched_setaffinity(0, [core])
        time.sleep(0.3)

        def spin():
            ends = time.process_time() + 0.2
            while time.process_time() < ends:
                pass

        sample = Clock().sample(spin)
    finally:
        rival.kill()
        rival.wait()
        os.sched_setaffinity(0, before)
    assert sample.waited_s > 0.02
    assert not statistics.clean(sample)
    assert statistics.seconds(sample) < sample.wall_s - 0.015


def test_only_clean_samples_count():
    samples = [reading(1.0), reading(1.1), reading(1.2), reading(9.0, waited=5.0)]
    summary = statistics.summarise([measured(samples=samples)])
    assert summary.seconds == pytest.approx(1.1)
    assert summary.disturbed == 0.25
    assert not summary.corrected


def test_waiting_is_subtracted_where_nothing_is_clean():
    summary = statistics.summarise([measured(samples=[reading(2.0, waited=1.0), reading(3.0, waited=2.0)])])
    assert summary.corrected
    assert summary.seconds == pytest.approx(1.0)


def test_the_interval_of_a_median_holds_it_as_often_as_it_says():
    random = Random(3)
    held = 0
    for _ in range(400):
        ordered = sorted(random.lognormvariate(0.0, 0.3) for _ in range(41))
        low, high = statistics.median_interval(ordered)
        held += low <= 1.0 <= high
    assert 0.92 <= held / 400 <= 0.99


def test_turns_of_case_and_control_are_mixed_and_even():
    order = []
    work = Work(run=lambda: order.append("case"))
    warm, samples = visit(work, lambda: order.append("control"), Clock(), replace(SHORT, sample_s=1e-9), Random(1))
    assert len(statistics.timed(samples)) == len(statistics.timed(samples, control=True)) >= SHORT.fewest
    assert len(warm) >= SHORT.fewest_warm_ups
    firsts = [samples[index].control for index in range(0, len(samples), 2)]
    assert 0 < sum(firsts) < len(firsts)


def test_a_precise_case_ends_before_its_budget():
    began = time.perf_counter()
    clock = Clock()
    clock.sample = lambda run, loops=1, control=False: reading(0.001, control=control)
    visit(Work(run=lambda: None), lambda: None, clock, Effort(budget_s=30.0), Random(0))
    assert time.perf_counter() - began < 5.0


# isolation: what a process does is a result


def _answer(x):
    return x * 2


def _fail():
    raise ValueError("this case\nis wrong")


def _crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang():
    time.sleep(60)


def _fill():
    return [bytearray(64 * 2**20) for _ in count()]


@pytest.mark.parametrize(
    ("target", "arguments", "status", "says"),
    [
        (_answer, (21,), "ok", ""),
        (_fail, (), "failed", "ValueError: this case is wrong"),
        (_crash, (), "crashed", "SIGSEGV"),
        (_hang, (), "timed out", "1 s"),
        (_fill, (), "out of memory", ""),
    ],
)
def test_whatever_happens_in_a_case_is_its_result(target, arguments, status, says):
    outcome = run_isolated(
        server(), target, arguments, memory_bytes=700 * 2**20, time_s=1.0 if target is _hang else 30.0
    )
    assert outcome.status == status
    assert says in outcome.why
    assert outcome.value == (42 if target is _answer else None)


# the store


def test_a_measurement_survives_the_file(tmp_path):
    path = str(tmp_path / "m.jsonl")
    original = measured(samples=[reading(1.5, parts_s={"forward": 1.0})], facts={"error": 0.1})
    with Store(path) as store:
        store.add_environment("e", {"cpu": "x"})
        store.add(original)
    environments, measurements = read(path)
    assert environments == {"e": {"cpu": "x"}}
    assert measurements == [original]


def test_a_line_cut_short_is_dropped_and_written_anew(tmp_path):
    path = str(tmp_path / "m.jsonl")
    with Store(path) as store:
        store.add(measured("a"))
        store.add(measured("b"))
    whole = (tmp_path / "m.jsonl").read_bytes()
    for cut in range(1, len(whole)):
        (tmp_path / "m.jsonl").write_bytes(whole[:cut])
        with Store(path) as store:
            assert [one.case for one in store.measurements] == ["a", "b"][: whole[:cut].count(b"\n")]
            store.add(measured("c"))
        assert read(path)[1][-1].case == "c"


def test_two_runs_cannot_write_one_file(tmp_path):
    path = str(tmp_path / "m.jsonl")
    with Store(path), pytest.raises(InputError, match="being written"), Store(path):
        pass


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"schema":99}', '{"schema":1,"type":"x"}', '{"schema":1,"type":"measurement"}']
)
def test_a_file_of_something_else_is_refused_by_line(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(FileFormatError, match="line 1"):
        read(str(path))


def lines(path):
    return Path(path).read_bytes().count(b"\n") if os.path.exists(path) else 0


def test_kill_9_and_resume(tmp_path):
    """A real suite in a second process, killed while it measures, then started again on the same file."""
    path = str(tmp_path / "m.jsonl")
    command = [
        sys.executable, "-m", "capacity", "bench", "memory", "--to", path, "--rounds", "1", "--budget", "20ms", "--threads", "1",
        "--json",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends = time.time() + 90.0
        while time.time() < ends and lines(path) < 4:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open(path, "ab") as file:  # as if the kill had come while a line was written
        file.write(b'{"schema":1,"type":"measure')
    before = read(path)[1]
    total = len(cases(FULL, Machine(), ["memory"]))
    assert 3 <= len(before) < total
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    assert f"holds {len(before)} of {total} visits" in done.stderr
    after = read(path)[1]
    assert after[: len(before)] == before
    assert len({one.key for one in after}) == len(after) == total
    assert {one["status"] for one in json.loads(done.stdout)["cases"]} == {"ok"}


# the suite


def test_every_family_lists_cases_of_unique_names():
    for profile in (QUICK, FULL):
        names = [case.name for case in cases(profile, Machine())]
        assert len(set(names)) == len(names) > 20
    assert {case.kernel for case in cases(FULL, Machine())} >= set(KERNELS) - {"host-device"}


def test_cases_are_chosen_by_kernel_kind_and_pattern():
    assert {case.kernel for case in cases(FULL, Machine(), ["gemm"])} == {"gemm"}
    assert all("bf16" in case.name for case in cases(FULL, Machine(), ["attention/*bf16*"]))
    with pytest.raises(UnknownNameError, match="gemm"):
        cases(FULL, Machine(), ["gem"])


def test_rounds_visit_all_cases_in_other_orders(tmp_path):
    chosen = cases(FULL, Machine(), ["memory"])
    with Store(str(tmp_path / "m.jsonl")) as store:
        visits = outstanding(chosen, Plan(machine=Machine(), rounds=2), store)
        store.add(measured(chosen[0].name, round=1))
        assert len(outstanding(chosen, Plan(machine=Machine(), rounds=2), store)) == len(visits) - 1
    first, second = visits[: len(chosen)], visits[len(chosen) :]
    assert {case.name for case, _ in first} == {case.name for case, _ in second}
    assert [case.name for case, _ in first] != [case.name for case, _ in second]


def test_a_suite_goes_on_after_a_case_that_cannot_be_built(tmp_path):
    wrong = Case("gemm", {"dtype": "fp32", "m": 10**9, "n": 10**9, "k": 8, "layout": "nt"})
    right = cases(QUICK, Machine(), ["memory"])[0]
    with Store(str(tmp_path / "m.jsonl")) as store:
        plan = Plan(machine=Machine(), effort=SHORT, rounds=1, memory_bytes=4 * 2**30)
        made = {one.case: one for one in run_suite([wrong, right], plan, store)}
        facts = next(iter(store.environments.values()))
    assert made[wrong.name].status == "out of memory"
    assert made[right.name].status == "ok"
    assert made[right.name].settings["threads"] == 1
    assert made[right.name].energy_j is None or made[right.name].energy_source != "none"
    assert facts["cpu"]
    assert facts["versions"]["torch"]


# surroundings


def test_the_key_of_an_environment_ignores_the_load_only():
    facts = environment.environment()
    again = facts | {"load": [9.0, 9.0, 9.0]}
    assert environment.key_of(again) == facts["key"]
    assert environment.key_of(facts | {"threads": 7}) != facts["key"]


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
def test_the_clock_is_measured_where_there_is_a_compiler():
    from capacity.measurement.native import clock_probe, triad_bytes_per_s

    assert 3e8 < clock_probe() < 1e10
    assert 1e8 < triad_bytes_per_s(2**20, 3) < 1e13


# telemetry through an NVML that answers from a script


def test_nvml_reads_power_energy_clocks_and_throttling():
    gpu = telemetry.Nvml(library=FakeNvml(reasons=4 | 64))
    now = gpu.read()
    assert now["power_w"] == 412.5
    assert now["clock_hz"] == 1.755e9
    assert now["memory_used_bytes"] == 7 * 2**30
    assert now["throttled"] == ["power cap", "hardware thermal slowdown"]
    first = gpu.energy_j()
    assert gpu.energy_j() - first == 250.0
    assert gpu.facts()["gpu"] == "Fake GPU"


@pytest.mark.parametrize(
    ("visible", "asked"), [(None, 0), ("", 0), ("3,1", 3), ("GPU-5e1f-77,GPU-aa", "GPU-5e1f-77"), ("MIG-0a", "MIG-0a")]
)
def test_the_gpu_that_is_watched_is_the_one_cuda_sees_first(visible, asked, monkeypatch):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    library = FakeNvml()
    assert telemetry.counter("cuda", library).source == "nvml"
    assert library.asked == asked


def test_a_clock_waits_for_the_device_before_and_after_every_sample_and_phase():
    calls = []
    clock = Clock(lambda: calls.append("settled"))
    clock.sample(lambda: calls.append("run"), loops=2)
    assert calls == ["settled", "run", "run", "settled"]
    calls.clear()
    clock.phased_sample([("a", lambda: calls.append("a")), ("b", lambda: calls.append("b"))])
    assert calls == ["settled", "a", "settled", "b", "settled"]


def test_ranks_without_a_gpu_each_are_not_supported():
    from capacity.measurement.case import NotSupportedError
    from capacity.measurement.ranks import Ranks, launch

    ranks = Ranks("capacity.measurement.kernels.collective", "rank_work", {}, 2, Machine(device="cuda"))
    with pytest.raises(NotSupportedError, match="2 ranks need a GPU each, 0 can be seen"):
        launch(ranks, SHORT)


def test_what_the_driver_does_not_say_is_none():
    gpu = telemetry.Nvml(library=FakeNvml(missing=("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption")))
    assert gpu.read()["power_w"] is None
    assert gpu.energy_j() is None
    assert gpu.read()["throttled"] == []


def test_a_watch_keeps_the_range():
    watch = telemetry.Watch(telemetry.Nvml(library=FakeNvml(reasons=4)))
    watch(0)
    watch(0)
    summary = watch.summary()
    assert summary["power_w"] == [412.5, 412.5, 412.5]
    assert summary["throttled"] == ["power cap"]


def test_a_rapl_counter_that_wraps_is_unwrapped(tmp_path):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("9000000")
    (zone / "max_energy_range_uj").write_text("10000000")
    counter = telemetry.Rapl(str(tmp_path))
    assert counter.energy_j() == 0.0
    (zone / "energy_uj").write_text("2000000")
    assert counter.energy_j() == pytest.approx(3.0)


def test_no_counter_gives_no_source(tmp_path):
    with pytest.raises(OSError, match="RAPL"):
        telemetry.Rapl(str(tmp_path))


# check


def findings(*measurements, facts=None):
    return " ".join(f"{finding.why} | {finding.remedy}" for finding in check.check({"e": facts or {}}, measurements))


def steady(seconds=1.0, n=20):
    return [reading(seconds * (1.0 + 0.001 * index)) for index in range(n)]


def test_a_steady_case_raises_nothing():
    assert findings(measured(samples=steady()), facts={"load": [0.1, 0, 0], "cores": 8, "threads": 8}) == ""


@pytest.mark.parametrize(
    ("measurements", "facts", "says"),
    [
        ([measured(samples=[reading(1.0, waited=0.5)] * 9)], {}, "waited for a core"),
        ([measured(samples=steady()), measured(samples=steady(1.5), round=1)], {}, "visits differ by 50%"),
        ([measured(samples=[*steady(1.0), *steady(2.0)])], {}, "spread"),
        ([measured(samples=steady(n=3))], {}, "only 3 samples"),
        ([measured(samples=steady(), overhead_s=0.5)], {}, "clock"),
        ([measured(samples=steady(), telemetry={"throttled": ["power cap"]})], {}, "power cap"),
        ([measured(samples=steady(), telemetry={"others_share": 0.4})], {}, "other processes used 40%"),
        ([measured(status="out of memory", why="held 3e9")], {}, "--memory"),
        ([measured(samples=steady())], {"quota_cores": 1.5, "threads": 4}, "--threads 1"),
        ([measured(samples=steady())], {"governor": "powersave"}, "performance"),
        ([measured(samples=steady())], {"load": [7.0, 1, 1], "cores": 4}, "idle"),
    ],
)
def test_each_reason_is_named_with_its_remedy(measurements, facts, says):
    assert says in findings(*measurements, facts=facts)


def test_a_slow_control_kernel_is_named():
    def beside(control, name):
        return measured(name, samples=[*steady(), *[reading(control, control=True)] * 9])

    text = findings(beside(1.0, "a"), beside(1.0, "b"), beside(1.4, "c"))
    assert "40% slower" in text
    assert text.count("control kernel") == 1


def test_visits_of_one_machine_and_setting_belong_together_however_long_they_were(tmp_path):
    from capacity.measurement.measured import Measured

    path = str(tmp_path / "m.jsonl")
    plan = {"threads": 1, "allocator": "pinned"}
    with Store(path) as store:
        for key, facts in (
            ("other", {"cpu": "a", "plan": {**plan, "threads": 2}}),
            ("short", {"cpu": "a", "plan": {**plan, "budget_s": 0.1}}),
            ("long", {"cpu": "a", "plan": {**plan, "budget_s": 9.0}}),
        ):
            store.add_environment(key, facts)
        store.add(measured("gemm/x", samples=steady(7.0), environment="other"))
        store.add(measured("gemm/x", samples=steady(1.0), environment="short", round=1))
        store.add(measured("gemm/x", samples=steady(1.0), environment="long", round=2))
    found = Measured(path)
    assert [visit.environment for visit in found.visits] == ["short", "long"]
    assert found.summaries["gemm/x"].seconds == pytest.approx(1.0, rel=0.05)


# energy without a counter


def test_modelled_energy_says_so_and_holds_what_other_servers_of_the_kind_draw(tmp_path):
    power = {"idle_w_per_core": (0.5, 1.0, 2.0), "busy_w_per_core": (3.0, 4.0, 6.0), "source": "published"}
    chosen = cases(QUICK, Machine(), ["memory"])[:1]
    with Store(str(tmp_path / "m.jsonl")) as store:
        (made,) = run_suite(chosen, Plan(machine=Machine(), effort=SHORT, rounds=1, power=power), store)
        facts = next(iter(store.environments.values()))
    low, high = made.energy_interval_j
    if made.energy_source == "modelled":
        seconds = statistics.summarise([made]).seconds
        assert (low, made.energy_j, high) == pytest.approx((1.0 * seconds, 4.0 * seconds, 7.5 * seconds), rel=0.01)
    assert made.energy_source in ("modelled", "rapl")
    assert facts["power_model"]["source"] == "published"
    assert read(str(tmp_path / "m.jsonl"))[1] == [made]


@pytest.mark.parametrize(
    ("name", "identity", "processor"),
    [
        ("AMD EPYC", ("AuthenticAMD", 25, 17), "Zen 4"),
        ("AMD EPYC 9755", ("AuthenticAMD", 26, 2), "without results"),
        ("Intel(R) Xeon(R) Platinum 8480+", ("GenuineIntel", 6, 143), "Sapphire Rapids"),
        ("AMD Ryzen 9 7950X", ("AuthenticAMD", 25, 97), None),
        ("Neoverse-N1", ("", None, None), None),
    ],
)
def test_power_of_a_core_is_known_for_servers_only(name, identity, processor):
    from capacity.catalogue.power import core_power

    found = core_power(name, *identity)
    if processor is None:
        assert found is None
        return
    assert processor in found.processor
    assert found.results >= 3
    assert found.idle_w_per_core[1] < found.busy_w_per_core[0]
