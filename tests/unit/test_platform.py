"""The platform under a run: storage, data, failures, protection."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from scipy import stats

import capacity
from capacity.catalogue import list_storage, load_data_kind, load_failures, load_host, load_storage
from capacity.cli import main
from capacity.errors import CapacityError, FileFormatError, InputError, UnknownNameError
from capacity.estimators.dataset import KERNEL_SHARE
from capacity.formulas import reliability, schedule, security, storage

LARGE = {"model": "llama-3.1-405b", "mode": "train", "device": "h100-sxm", "devices": 16384, "tokens": 15.6e12}
LAYOUT = {"tp": 8, "pp": 16, "dp": 128, "zero": 1, "micro_batch": 1}
SMALL = {"model": "llama-3.1-8b", "mode": "train", "devices": 64, "tokens": 1e11, "tp": 1, "pp": 1, "zero": 2}


def platform(**request):
    return capacity.estimate(**(LARGE | LAYOUT | request)).sections["platform"]


# ---- the catalogue -----------------------------------------------------------------------------


def test_every_storage_is_read_and_every_number_has_its_source():
    found = list_storage()
    assert len(found) >= 20
    assert len({one.kind for one in found}) >= 6
    for one in found:
        assert one.read_bytes_per_s > 0.0
        assert one.read_bytes_per_s.source
        assert one.write_bytes_per_s.source


def test_a_storage_system_of_ones_own(tmp_path):
    folder = tmp_path / "storage"
    folder.mkdir()
    text = """id = "mine"
name = "My filer"
kind = "file server"
unit = "filer"
read = { value = 10, unit = "GB/s", source = "me" }
write = { value = 4, unit = "GB/s", source = "me" }
[sources.me]
title = "measured"
date = "2026-11"
"""
    (folder / "mine.toml").write_text(text)
    assert load_storage("mine", (str(tmp_path),)).write_bytes_per_s == 4e9
    section = platform(storage="mine", catalogue=(str(tmp_path),))
    assert section.setting.startswith("My filer")
    (folder / "mine.toml").write_text(text.replace(', source = "me" }', " }"))
    with pytest.raises(FileFormatError, match="source"):
        load_storage("mine", (str(tmp_path),))


@pytest.mark.parametrize("width", [80, 120])
def test_the_command_lists_and_shows_storage(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in ((), ("lustre",), ("aws-s3",), ("blob",)):
        assert main(["storage", *arguments]) == 0
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= width
    assert "[2]" in text
    assert main(["storage", "lustre", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["storage"]
    assert len(found) >= 6
    assert all(one["sources"]["read_bytes_per_s"] for one in found)
    assert main(["storage", "gpfss"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_an_estimate_that_does_not_ask_loads_nothing_of_it():
    code = "import sys; from capacity.estimators.answer import estimate; estimate(params=7e9); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "capacity.estimators.training" in loaded
    beside = ("platform", "upkeep", "protection", "dataset", "deployment", "platform_serving")
    assert not loaded & {f"capacity.estimators.{name}" for name in beside}


def test_the_entry_of_the_page_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "platform.md").read_text(encoding="utf-8")
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "filer.toml").write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    found = load_storage("filer", (str(tmp_path),))
    assert (found.data_parts, found.parity_parts) == (8.0, 3.0)
    assert found.usd_per_byte_month == pytest.approx(5e-11)


def test_the_interruptions_of_llama_3_are_all_there():
    found = load_failures("llama-3-405b")
    assert sum(one.failures for one in found.components) == 419
    hard = sum(one.failures for one in found.components if one.hardware)
    # The report says that about 78 % are hardware, confirmed or suspected.
    assert hard / 419 == pytest.approx(0.78, abs=0.03)


@pytest.mark.parametrize("name", ["text", "images", "audio", "video"])
def test_kinds_of_data_are_worked_on_by_what_the_bench_measures(name):
    kind, host = load_data_kind(name), load_host("zen-4")
    assert set(kind.stages) | set(kind.feeding) <= set(host.works)


# ---- formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.05, 0.7, 3.0, 13.3, 80.0])
def test_spares_are_enough_for_their_share_of_the_time(mean):
    found = reliability.spares_needed(mean)
    exact = stats.poisson.ppf(0.99, mean)
    assert exact - 1.0 <= found <= exact + 1.0


@pytest.mark.parametrize(("replicas", "down"), [(1.0, 0.01), (11.0, 0.02), (64.0, 0.004)])
def test_the_share_of_time_that_enough_replicas_are_up_is_binomial(replicas, down):
    exact = stats.binom.cdf(1, int(replicas) + 1, down)
    assert reliability.held_share(replicas, down) == pytest.approx(exact, rel=1e-9)


def test_goodput_is_what_a_simulated_run_keeps():
    """Failures at random, checkpoints every interval: the formula against time that was lived through."""
    chance = random.Random(5)
    mtbf, interval, stall, back = 11140.0, 1200.0, 30.0, 500.0
    done = clock = 0.0
    next_failure = chance.expovariate(1.0 / mtbf)
    while done < 5e6:
        if clock + interval + stall <= next_failure:
            clock += interval + stall
            done += interval
        else:
            clock = next_failure + back
            next_failure = clock + chance.expovariate(1.0 / mtbf)
    assert schedule.goodput(stall, interval, mtbf, back) == pytest.approx(done / clock, rel=0.01)


def test_redundancy():
    assert storage.redundant_bytes(10.0, 3.0, 1.0, 0.0) == 30.0
    assert storage.redundant_bytes(80.0, 1.0, 8.0, 3.0) == 110.0


def test_a_protected_link_loses_what_frames_add_or_as_much_as_its_engine_lacks():
    assert security.protected_bytes_per_s(5e10, 4096.0, 32.0, 5e10) == pytest.approx(5e10 * 4096 / 4128)
    assert security.protected_bytes_per_s(5e10, 4096.0, 32.0, 4e9) == 4e9


# ---- answers -----------------------------------------------------------------------------------


def test_llama_3_on_its_own_storage_keeps_the_time_it_published():
    section = platform(storage="tectonic-llama3", retention=5)
    quantities = section.quantities
    # One interruption about every three hours, and more than 90 % effective time.
    assert quantities["failure_interval"].mid == pytest.approx(54 * 86400 / 419, rel=0.01)
    assert 0.90 <= quantities["kept_time"].mid <= 0.95
    assert section.fits
    # Checkpoints are of 1 MB to 4 GB a device.
    each = quantities["checkpoints_held"].mid / 5 / 16384
    assert 1e6 < each < 4e9


def test_failures_counted_elsewhere_give_their_published_mean():
    """RSC-1: 6.5 failures in 1,000 node-days, so 1.8 h between them on 16,384 devices (Kokolis et al.)."""
    found = platform(failures="meta-rsc-1").quantities["failure_interval"].mid
    assert found / 3600.0 == pytest.approx(1.8, rel=0.03)
    assert platform(failures="50000h").quantities["failure_interval"].mid == pytest.approx(50000 * 3600 / 16384)


def test_slow_storage_binds_and_a_snapshot_frees_the_devices():
    slow = platform(storage="nfs-server")
    assert slow.binding == "checkpoint stalls"
    assert not slow.fits
    assert "--snapshot async" in slow.verdict
    behind = platform(storage="nfs-server", snapshot="async")
    assert behind.quantities["save_stall"].mid < 0.01 * slow.quantities["save_stall"].mid
    assert behind.quantities["kept_time"].mid > slow.quantities["kept_time"].mid
    # A snapshot written behind training is there only once it is written.
    assert behind.quantities["save_interval"].mid >= 2.0 * behind.quantities["save_time"].mid * 0.999


def test_training_itself_hears_of_its_storage_and_failures():
    def run_time(**request):
        return capacity.estimate(**(LARGE | LAYOUT | request)).sections["train"].quantities["run_time"].mid

    plain = run_time()
    assert run_time(storage="nfs-server") > 1.2 * plain
    assert run_time(failures="5000h") > 1.1 * run_time(failures="50000h")
    assert run_time(storage="tectonic-llama3", spares=30) < run_time(storage="tectonic-llama3")


def test_pictures_that_loaders_decode_need_cores():
    request = {"model": "vit-b-16", "mode": "train", "devices": 8, "tokens": 1e10, "storage": "dgx-h100-nvme"}
    raw = capacity.estimate(**request, cores_per_device=1).sections["platform"]
    assert raw.binding == "loader cores"
    ready = capacity.estimate(**request, cores_per_device=1, feed="prepared").sections["platform"]
    assert ready.quantities["loader_cores_per_device"].mid < 0.3 * raw.quantities["loader_cores_per_device"].mid
    assert ready.quantities["feed"].mid > raw.quantities["feed"].mid


def test_a_data_set_of_several_kinds():
    one = platform(dataset="text:15.6T,images:5B,audio:680000h").quantities
    text = platform(dataset="text:15.6T").quantities
    assert one["dataset_collected"].mid == pytest.approx(
        text["dataset_collected"].mid + 5e9 * 107700 + 680000 * 3600 * 17400, rel=1e-9
    )
    assert text["dataset_prepared"].mid == pytest.approx(15.6e12 * 4)
    assert text["shuffled"].mid > text["dataset_prepared"].mid
    assert one["random_reads"].mid > text["random_reads"].mid


def test_redundancy_and_retention_are_on_disks():
    def kept(**request):
        return platform(storage="ceph-nvme-node", dataset="text:1T", **request)

    plain, copies = kept(redundancy="none"), kept(redundancy="3x")
    assert copies.quantities["stored"].mid == pytest.approx(3.0 * plain.quantities["stored"].mid)
    assert kept().quantities["stored"].mid == pytest.approx(11.0 / 8.0 * plain.quantities["stored"].mid)
    more = kept(retention=20, redundancy="none")
    checkpoint = plain.quantities["checkpoints_held"].mid / 10
    assert more.quantities["checkpoints_held"].mid == pytest.approx(20 * checkpoint)
    assert sum(plain.breakdowns["storage"].values()) == pytest.approx(plain.quantities["stored"].mid)
    assert kept(milestone="1d").quantities["checkpoints_held"].mid > 1.5 * checkpoint * 10


def test_a_short_run_keeps_no_more_than_it_writes():
    found = capacity.estimate(model="llama-3.1-8b", mode="finetune", storage="aws-efs").sections["platform"].quantities
    run = capacity.estimate(model="llama-3.1-8b", mode="finetune", storage="aws-efs").sections["finetune"].quantities
    written = run["run_time"].mid / found["save_interval"].mid
    assert written < 1.0
    assert found["checkpoints_held"].mid == pytest.approx((written + 1.0) * run["checkpoint"].mid)


def test_sound_is_read_in_clips():
    found = platform(dataset="audio:680000h").quantities
    assert found["feed"].mid / found["random_reads"].mid == pytest.approx(10 * 17400)


def test_protection_costs_what_its_engines_lack():
    macsec = platform(storage="tectonic-llama3", encrypt="in-transit").quantities
    software = platform(storage="tectonic-llama3", encrypt="in-transit", transit="software", cipher_cores=4).quantities
    closed = platform(storage="tectonic-llama3", encrypt="confidential").quantities
    assert 0.0 < macsec["step_slowdown"].mid < 0.01
    assert software["step_slowdown"].mid > 10.0 * macsec["step_slowdown"].mid
    assert closed["protected_link"].mid == 4.9 * 2**30
    assert closed["snapshot_time"].mid > 4.0 * macsec["snapshot_time"].mid
    assert "cipher_cores" not in closed


def test_cores_of_a_host_are_shared_by_its_devices_and_both_directions():
    host = load_host("zen-4")
    cores = 16.0
    found = platform(encrypt="in-transit", transit="software", cipher_cores=cores).quantities["protected_link"].mid
    work = host.works["aes-256-gcm"]
    core = 2**20 / (work.call_s + 2**20 / work.bytes_per_s)
    assert found == pytest.approx(core * cores / 8 / 2)


def test_checkpoints_are_enciphered_while_they_are_written():
    plain = platform(storage="tectonic-llama3").quantities["save_time"].mid
    kept = platform(storage="tectonic-llama3", encrypt="at-rest", cipher_cores=16).quantities
    assert kept["save_time"].mid == plain  # 2048 nodes of 16 cores keep up
    few = platform(storage="orion-flash", encrypt="at-rest", cipher_cores=1).quantities
    assert few["save_time"].mid == pytest.approx(few["save_protection_time"].mid)
    assert few["messages_per_key"].mid < 2**32
    run = platform(storage="orion-flash", encrypt="at-rest", keys="run")
    assert run.quantities["data_keys"].mid == 1.0
    faster = platform(storage="orion-flash", encrypt="at-rest", cipher_cores=1, digest="none").quantities
    assert faster["save_time"].mid < few["save_time"].mid


SERVED = {"model": "llama-3.1-70b", "mode": "serve", "devices": 4, "prefix_hit": 0.5}


def test_keys_and_values_are_kept_where_that_is_faster_than_reading_again():
    quick = capacity.estimate(**SERVED, storage="dgx-h100-nvme", kv_keep=600.0).sections["platform"]
    slow = capacity.estimate(**SERVED, storage="nfs-server", kv_keep=600.0).sections["platform"]
    assert quick.fits
    assert slow.binding == "reloading"
    served = capacity.estimate(**SERVED).sections["serve"].quantities
    rate, token = served["requests_per_s"].mid, served["kv_bytes_per_token"].mid
    assert quick.quantities["kv_kept"].mid == pytest.approx(rate * 600.0 * 1280.0 * token)
    assert quick.quantities["kv_read"].mid == pytest.approx(0.5 * rate * 1024.0 * token)
    closed = capacity.estimate(**SERVED, storage="dgx-h100-nvme", kv_keep=600.0, encrypt="confidential")
    assert closed.sections["platform"].quantities["kv_reload_time"].mid > quick.quantities["kv_reload_time"].mid


def test_a_service_starts_as_fast_as_its_weights_come():
    local = capacity.estimate(**SERVED, storage="dgx-h100-nvme").sections["platform"].quantities
    shared = capacity.estimate(**SERVED, storage="nfs-server").sections["platform"].quantities
    assert shared["weights_load"].mid > 5.0 * local["weights_load"].mid
    assert local["weights_stored"].mid == pytest.approx(70.6e9 * 2, rel=0.02)
    kept = capacity.estimate(**SERVED, storage="dgx-h100-nvme", encrypt="at-rest", cipher_cores=4).sections["platform"]
    assert kept.quantities["weights_load"].mid > 3.0 * local["weights_load"].mid
    traffic = capacity.estimate(**SERVED, encrypt="in-transit").sections["platform"].quantities["tls_cores"].mid
    assert 0.0 < traffic < 1.0


def test_a_service_says_how_often_it_is_short_and_how_long_renewing_takes():
    served = capacity.estimate(model="llama-3.1-8b", mode="serve", request_rate=200.0).sections["serve"].quantities
    replicas, interval = served["replicas"].mid, served["replica_failure_interval"].mid
    assert interval == pytest.approx(16384 * 54 * 86400 / 419)
    away = 86400.0 / (interval + 86400.0)
    assert served["held_share"].mid == pytest.approx(stats.binom.cdf(1, int(replicas) + 1, away), rel=1e-6)
    wait = served["drain_time"].mid + served["cold_start"].mid
    assert served["rolling_update"].mid == pytest.approx((replicas + 1) * wait)


@pytest.mark.parametrize("name", ["dataset", "snapshot", "retention"])
def test_options_of_training_are_refused_for_a_service(name):
    with pytest.raises(InputError, match="training run"):
        capacity.estimate(model="llama-3.1-8b", mode="serve", **{name: 5})
    with pytest.raises(InputError, match="mode serve"):
        capacity.estimate(**SMALL, kv_keep=600.0)


def test_answers_keep_to_the_schema(capsys):
    assert (
        main(
            [
                "estimate",
                "--model",
                "llama-3.1-8b",
                "--mode",
                "train",
                "--storage",
                "s3",
                "--encrypt",
                "at-rest",
                "--json",
            ]
        )
        == 0
    )
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["sections"]) == {"train", "platform"}
    with open(capacity.__path__[0] + "/schema/estimate-1.json", encoding="utf-8") as file:
        Draft202012Validator(json.load(file)).validate(answer)
    assert answer["sections"]["platform"]["quantities"]["storage_cost"]["mid"] > 0.0


@pytest.mark.parametrize(
    "name", ["platform.save_time", "platform.failure_interval", "platform.stored", "platform.cipher_cores"]
)
def test_numbers_explain_themselves(name, capsys):
    arguments = ["estimate", "--model", "llama-3.1-8b", "--mode", "train", "--storage", "s3", "--encrypt", "at-rest"]
    assert main([*arguments, "--explain", name]) == 0
    text = capsys.readouterr().out
    assert "=" in text
    assert len(text.splitlines()) > 4


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_keeps_to_its_width(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    arguments = ["--storage", "hdfs", "--encrypt", "at-rest,in-transit", "--snapshot", "async", "--redundancy", "8+3"]
    assert main(["estimate", "--model", "llama-3.1-8b", "--mode", "train", *arguments]) == 0
    text = capsys.readouterr().out
    assert "PLATFORM" in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"storage": "fsx-lustre-100"}, "fsx-lustre-1000"),
        ({"redundancy": "eight"}, "copies as 3x"),
        ({"redundancy": "0x"}, "copies as 3x"),
        ({"encrypt": "at-rest,everything"}, "in-transit"),
        ({"dataset": "audio"}, "680000h"),
        ({"dataset": "texts:5T"}, "text"),
        ({"failures": "llama-9"}, "50000h"),
        ({"device": "a100-sxm-80gb", "encrypt": "confidential"}, "Hopper"),
        ({"snapshot": "later"}, "sync"),
        ({"host": "zen-9"}, "zen-4"),
        ({"feed": "cooked"}, "raw"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(request_, told):
    with pytest.raises(CapacityError) as caught:
        capacity.estimate(**(SMALL | request_))
    assert isinstance(caught.value, (InputError, UnknownNameError))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- by hand -----------------------------------------------------------------------------------


def test_the_bill_of_405b_by_hand():
    """Every number of docs/platform.md's first example once, on paper: 15.6T tokens, 16,384 H100, Tectonic's 2 TB/s."""
    answer = capacity.estimate(
        model="llama-3.1-405b", mode="train", cluster="meta-h100-roce", nodes=2048, tokens=15.6e12, storage="tectonic-llama3",
        encrypt="at-rest,in-transit", spares=16,
    )  # fmt: skip
    found = {name: one.mid for name, one in answer.sections["platform"].quantities.items()}
    run_s, rate = (answer.sections["train"].quantities[name].mid for name in ("run_time", "tokens_per_s"))
    tokens, day = 15.6e12, 86400.0
    collected = tokens * 3.94 / 0.42  # 3.94 bytes a token, 42 % kept: 146.3 TB
    prepared = tokens * 4.0  # a vocabulary of 128,256 takes four bytes: 62.4 TB
    checkpoint = 405.85e9 * 14.0  # bf16 weights, fp32 master and two moments: 5.68 TB
    save = checkpoint / 2e12  # 2.84 s
    failure = 54.0 * day / 419.0  # 3.09 h between interruptions
    interval = (2.0 * save * failure) ** 0.5  # Young: 4.2 min
    logs = 16384 * 200.0 * run_s  # 200 bytes a second and device
    back = 120.0 + 180.0 + save  # noticed, a spare takes the place, read
    away = (419 - 54 - 35 - 7 - 2) / 54.0  # hardware away for a day each: 5.9 nodes
    core = 1.0 / (1.0 / 1.797e9 + 1.0 / 1.01e10)  # SHA-256, then AES-256-GCM: 1.53 GB/s
    kernels = collected / 9.137e6 + collected / 6.294e6 + tokens * 3.94 / 2.475e6  # filter, MinHash, tokenise: 17.8K h
    work = kernels / 0.093
    shuffled = (
        collected / 3100.0 * 14 * 24 + prepared
    )  # 14 bands of 24 bytes a document, then every token once: 78.3 TB
    by_hand = {
        "dataset_collected": collected, "dataset_prepared": prepared, "checkpoints_held": 10.0 * checkpoint, "logs": logs,
        "stored": collected + prepared + 10.0 * checkpoint + logs, "feed": prepared / (tokens / rate), "save_time": save,
        "failure_interval": failure, "save_interval": interval, "recovery_time": back, "saves": run_s / interval,
        "written_per_day": checkpoint * day / interval, "data_keys": 10.0 * 16384, "cipher_cores": checkpoint / interval / core,
        "interruptions": run_s / failure, "shuffled": shuffled, "preparation": work / 3600.0,
        "preparation_time": 1.3 * (work / 4096.0 + (shuffled + prepared) / (64 * 3.125e9)),
        "random_reads": tokens / 4096.0 / (tokens / rate),
    }  # fmt: skip
    for name, value in by_hand.items():
        assert found[name] == pytest.approx(value, rel=0.01), name
    lost = save / interval + (interval / 2.0 + back) / failure
    assert found["kept_time"] == pytest.approx(1.0 - lost, abs=0.005)
    assert found["spares_needed"] == round(away + 2.326 * away**0.5 + 0.74)


@pytest.mark.parametrize(("documents", "core_hours"), [(253e6, 9 * 32 * 1.5), (2.53e9, 63 * 32 * 4.5)])
def test_core_hours_of_a_pipeline_no_share_was_taken_from(documents, core_hours):
    """distributed-curator on Spark: Common Crawl WET pages deduplicated on 9 and 63 machines of 32 processors in 1.5 and 4.5 h.

    A page has 2.9 kB compressed (Common Crawl, September 2016: 4.54 TiB for 1.72 billion), 8.1 kB unpacked 2.8 times.
    """
    host = load_host("zen-4")
    kernels = documents * 2.9e3 * 2.8 / host.work("minhash").bytes_per_s
    predicted = kernels / KERNEL_SHARE / 3600.0
    assert 0.4 < core_hours / predicted < 2.2
    assert core_hours > 4.0 * kernels / 3600.0  # kernels alone are no answer
