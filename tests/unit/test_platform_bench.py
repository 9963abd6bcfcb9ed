"""What is measured beside the devices, the laws fitted to it, and estimates that use them."""

import json

import pytest

import capacity
from capacity.calibration.platform import calibrate, fit, write_platform
from capacity.catalogue import load_host, load_storage
from capacity.cli import main
from capacity.errors import InputError
from capacity.estimators import upkeep_case
from capacity.laws.platform import PlatformLaw
from capacity.measurement.amounts import KINDS, Amount
from capacity.measurement.case import FULL, QUICK, Case, Machine
from capacity.measurement.kernels import crypto, preparation, storage
from capacity.measurement.registry import KERNELS, cases
from capacity.measurement.store import Store
from capacity.spec.measurement import Measurement, Sample

MACHINE = Machine()
# One small case of each family of cases.
SMALL = [
    case
    for case in cases(FULL, MACHINE, KINDS)
    if case.parameters.get("KiB", 4) in (0, 4) and case.parameters.get("MiB", 8) == 8
    and case.parameters.get("sequences", 8) == 8 and case.parameters.get("width", 256) == 256
    and case.parameters.get("seconds", 2) == 2
]  # fmt: skip


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_every_family_runs(case, monkeypatch):
    monkeypatch.setattr(storage, "SPREAD_BYTES", 4 * 2**20)
    monkeypatch.setattr(preparation, "TRAINING_WORDS", 20_000)
    work = KERNELS[case.kernel].build(case.parameters, MACHINE)
    try:
        work.run()
        work.run()
        assert work.moved_bytes is None or work.moved_bytes > 0.0
    finally:
        if work.close:
            work.close()


def test_quick_is_a_part_of_full_and_short():
    quick = {case.name for case in cases(QUICK, MACHINE, KINDS)}
    assert quick <= {case.name for case in cases(FULL, MACHINE, KINDS)} | quick
    assert 10 <= len(quick) <= 24
    assert {KERNELS[name.partition("/")[0]].kind for name in quick} == set(KINDS)


@pytest.mark.parametrize("form", ["torch", "safetensors", "dcp"])
def test_a_checkpoint_that_was_loaded_is_the_one_that_was_saved(form, tmp_path):
    import torch

    own = {"layer.0": torch.randn(64), "layer.1": torch.randn(32)}
    other = {name: torch.zeros_like(value) for name, value in own.items()}

    def copy(source):
        for name, value in source.items():
            other[name].copy_(value)

    save, load = storage._ways(form, own, other, copy, str(tmp_path / "state"))
    save()
    load()
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_what_is_enciphered_is_enciphered():
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    fresh = KERNELS["cipher"].build({"cipher": "aes-256-gcm", "memory": "fresh", "KiB": 4}, MACHINE).run()
    assert AESGCM(bytes(range(32))).decrypt(bytes(12), fresh, None) == crypto._noise(4096)


def test_both_ends_of_tls_meet():
    server, client = crypto._contexts()
    sender, receiver, wire = crypto._connected(server, client)
    sender.write(b"hello")
    wire()
    assert receiver.read(100) == b"hello"
    assert receiver.version() == "TLSv1.3"


def test_minhash_tells_near_duplicates():
    text = preparation.text(8)
    near, other = text.replace(text.split()[40], "changed", 1), preparation.text(8, seed=99)
    own = preparation.signature(text)
    assert (own == preparation.signature(near)).mean() > 0.9
    assert (own == preparation.signature(other)).mean() < 0.1


def test_a_made_picture_packs_as_a_photograph_does():
    """ImageNet's pictures take about 0.2 to 0.25 bytes a byte of pixels."""
    facts = KERNELS["picture"].build({"work": "decode", "width": 500, "height": 375}, MACHINE).facts()
    assert 0.1 < facts["file_bytes"] / (3 * 500 * 375) < 0.35


# ---- calibration -------------------------------------------------------------------------------


def true_s(kernel, moved):
    """Laws the synthetic machine follows."""
    call, each, far = {"cipher": (6e-7, 1e-10, 2e-11), "disk": (5e-3, 1e-9, 0.0), "text": (1e-5, 4e-7, 0.0)}[kernel]
    return call + moved * each + far * max(moved - 2**21, 0.0)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A store of a machine whose laws are known, and a folder of its own."""
    monkeypatch.setenv("CAPACITY_HOME", str(tmp_path / "home"))
    path = str(tmp_path / "bench.jsonl")
    measured(path)
    return path


def measured(path, odd=()):
    """Fill a store; cases in `odd` take twice their time."""
    with Store(path) as store:
        store.add_environment(
            "m", {"cpu": "test", "caches_bytes": {"L2": 2**20, "L3": 32 * 2**20}, "seen": "2026-11-25"}
        )
        for case in cases(FULL, MACHINE, ("cipher", "disk", "text")):
            moved = case.parameters["KiB"] * 1024.0
            seconds = true_s(case.kernel, moved) * (2.0 if case.name in odd else 1.0)
            samples = tuple(Sample(seconds * (1.0 + 0.002 * turn), 1, 0.0, 0) for turn in range(-3, 4))
            store.add(
                Measurement(
                    case.name, case.kernel, case.parameters, "cpu", 0, "ok", "m", "", moved_bytes=moved, samples=samples
                )
            )


def test_laws_are_found_and_hold_at_sizes_that_were_kept_back(bench):
    laws, told = calibrate(bench)
    law = laws["cipher/aes-256-gcm-reused"]
    assert law.call_s == pytest.approx(6e-7, rel=0.02)
    assert law.bytes_per_s == pytest.approx(1e10, rel=0.02)
    assert law.far_bytes_per_s == pytest.approx(1.0 / 1.2e-10, rel=0.02)
    assert laws["disk/write-fsync"].call_s == pytest.approx(5e-3, rel=0.02)
    assert len(told["errors"]) > 20
    assert max(map(abs, told["errors"].values())) < 0.02
    assert not set(told["errors"]) & {f"cipher/aes-256-gcm-reused-KiB{size}" for size in ("0.25", "131072")}


def test_no_law_is_fitted_on_what_it_is_held_against(bench, tmp_path):
    laws, told = calibrate(bench)
    other = str(tmp_path / "other.jsonl")
    measured(other, odd=set(told["errors"]))
    again, off = calibrate(other)
    assert {name: (law.call_s, law.byte_s) for name, law in again.items()} == {
        name: (law.call_s, law.byte_s) for name, law in laws.items()
    }
    assert min(map(abs, off["errors"].values())) > 0.4


def test_estimates_use_what_was_measured_here(bench):
    laws, told = calibrate(bench)
    files = write_platform(laws, told)
    assert len(files) == 3
    folder = files[1].rpartition("/hosts/")[0]
    assert load_host("this-machine", (folder,)).works["tokenise"].bytes_per_s == pytest.approx(1 / 4e-7, rel=0.02)
    assert load_storage("this-machine", (folder,)).write_bytes_per_s == pytest.approx(1e9, rel=0.02)
    request = {"model": "llama-3.1-8b", "mode": "train", "devices": 8, "tokens": 1e9, "tp": 1, "pp": 1, "zero": 2}
    with pytest.raises(InputError, match="not measured with sha-256"):
        capacity.estimate(**request, storage="this-machine", encrypt="at-rest", host="this-machine")
    section = capacity.estimate(**request, storage="this-machine", storage_units=1).sections["platform"]
    assert section.quantities["save_time"].mid == pytest.approx(8.03e9 * 14 / 1e9, rel=0.03)


def test_this_machine_as_a_device_stands_on_its_own_disk_and_cores(bench):
    laws, told = calibrate(bench)
    folder = write_platform(laws, told)[1].rpartition("/hosts/")[0]
    asked = {"device": "this-machine"}
    assert upkeep_case._own(asked, "storage", "storage", (folder,)) == "this-machine"
    assert upkeep_case._own(asked, "host", "hosts", (folder,)) == "this-machine"
    assert upkeep_case._own(asked, "host", "hosts", ()) is None
    assert upkeep_case._own(asked | {"host": "zen-4"}, "host", "hosts", (folder,)) == "zen-4"
    assert upkeep_case._own({"device": "h100-sxm"}, "host", "hosts", (folder,)) is None


def test_the_commands_say_how_well_it_fits(bench, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["calibrate", "platform", "--data", bench]) == 0
    text = capsys.readouterr().out
    assert "kept from the fit" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("written")) <= 80
    assert main(["validate", "platform", "--data", bench, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["overall"]["mdape"] < 0.02
    assert scores["overall"]["baseline_mdape"] > 2.0 * scores["overall"]["mdape"]
    assert {group["metric"] for group in scores["groups"]} == {f"{kind}_time_s" for kind in KINDS}


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPACITY_HOME", str(tmp_path))
    with pytest.raises(InputError, match="capacity bench storage"):
        capacity.estimate(model="llama-3.1-8b", mode="train", host="this-machine")


def test_a_law_bends_where_a_cache_or_a_read_ahead_ends():
    law = PlatformLaw(1e-6, 1e-10, 1e-10, 1e6)
    assert law.seconds(1e6) == pytest.approx(1e-6 + 1e-4)
    assert law.seconds(2e6) == pytest.approx(1e-6 + 3e-4)
    assert Case("cipher", {"KiB": 4}).name == "cipher/KiB4"


@pytest.mark.parametrize(("beyond", "near"), [(4e-10, 2.0**23), (5e-11, 2.0**23), (1e-10, None)])
def test_a_fit_finds_where_bytes_begin_to_cost_otherwise(beyond, near):
    sizes = [2.0**power for power in (12, 19, 22, 24, 26, 28)]
    rows = [
        Amount(str(b), "storage", b, 1e-5 + 1e-10 * b + (beyond - 1e-10) * max(b - 2.0**23, 0.0), False) for b in sizes
    ]
    law = fit(rows)
    assert law.near_bytes == near or near is None
    for power in (15, 20, 23, 25, 27):
        b = 2.0**power
        assert law.seconds(b) == pytest.approx(1e-5 + 1e-10 * b + (beyond - 1e-10) * max(b - 2.0**23, 0.0), rel=0.01)


def test_random_reads_through_a_map_fetch_windows_that_overlap():
    whole = 256.0 * 2**20
    assert storage.fetched_bytes(1, 2048.0, 8.0 * 2**20, whole) == pytest.approx(8.0 * 2**20, rel=0.02)
    assert storage.fetched_bytes(1, 2048.0, 4096.0, whole) == pytest.approx(4096.0, rel=0.01)
    assert 0.98 * whole < storage.fetched_bytes(128, 2048.0, 8.0 * 2**20, whole) < whole
    assert storage.read_ahead_bytes("/") >= 4096.0
