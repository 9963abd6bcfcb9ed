"""Every shipped device: sourced, dense, plausible; and those a user adds."""

import json
import pickle
import re
import tomllib
from pathlib import Path

import pytest

from capacity import catalogue
from capacity.catalogue import entry
from capacity.catalogue.clusters import default_cluster
from capacity.catalogue.devices import DTYPES, KINDS, SEGMENTS, list_devices, load_device
from capacity.errors import CapacityError, FileFormatError, UnknownNameError
from capacity.formula import Sourced
from capacity.record import asdict, fields, replace

SHIPPED = Path(entry.SHIPPED)
FILES = sorted(SHIPPED.glob("devices/*/*.toml"))
DEVICES = list_devices()


def numbers(device):
    yield from (device.peak_dense_flop_per_s[dtype] for dtype in device.peak_dense_flop_per_s)
    for link in (device.link, device.network):
        if link is not None:
            yield link.bytes_per_s
            yield link.latency_s
    for name in fields(device):
        value = getattr(device, name)
        if isinstance(value, float):
            yield value


def test_about_150_devices_of_all_kinds_no_id_twice():
    ids = [path.stem for path in FILES]
    assert len(ids) == len(set(ids)) == len(DEVICES) >= 150
    assert {device.kind for device in DEVICES} == set(KINDS)
    assert {device.segment for device in DEVICES} == set(SEGMENTS)
    assert not [path for path in FILES if entry.normalised(path.stem) != path.stem]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_datum_has_a_dated_source_and_every_source_is_used(path):
    data = tomllib.loads(path.read_text("utf-8"))
    sources = data.pop("sources")
    used = set()

    def walk(table):
        for key, value in table.items():
            if isinstance(value, dict) and "value" in value:
                assert set(value) == {"value", "unit", "source"}, key
                used.add(value["source"])
            elif isinstance(value, dict):
                walk(value)
            else:
                assert isinstance(value, str), f"{key} is a bare number"

    walk(data)
    assert used == set(sources)
    for source in sources.values():
        assert source["title"]
        assert re.fullmatch(r"(19|20)\d\d(-\d\d){0,2}", source["date"])
        assert isinstance(source["checked"], bool)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.id)
def test_numbers_are_sourced_and_plausible(device):
    for value in numbers(device):
        assert isinstance(value, Sourced)
        assert value.source
        assert value.label
        assert value.tag in ("catalogue", "default")
    peak = device.peak_dense_flop_per_s
    assert list(peak) == [dtype for dtype in DTYPES if dtype in peak]
    general = {"fp64", "fp32", "tf32", "bf16", "fp16"} & set(peak)
    assert general, "no general dtype"
    if "fp64" in peak and "fp32" in peak:
        assert peak["fp32"] >= peak["fp64"]
    for wide, narrow in (("fp32", "tf32"), ("fp32", "bf16"), ("fp32", "fp16"), ("fp16", "fp4"), ("bf16", "fp8")):
        if wide in peak and narrow in peak:
            # A10G's tf32 is its vector rate, and half of RTX 4060's rates are rounded.
            assert peak[narrow] >= 0.99 * peak[wide], (wide, narrow)
    if "fp8" in peak and "bf16" in peak:
        assert peak["fp8"] <= 4 * peak["bf16"]
    best = max(peak[dtype] for dtype in general)
    ridge = best / device.memory_bytes_per_s
    # FLOP per byte at which compute starts to bind; inference cards on LPDDR reach four times a B200's.
    assert (0.1 if device.kind == "CPU" else 1.0) <= ridge <= 1300 or device.memory_type == "SRAM"
    if device.memory_type != "SRAM":
        # Seconds to read the whole memory: 20 ms for HBM; CPUs take terabytes of memory.
        assert 0.01 <= device.memory_bytes / device.memory_bytes_per_s <= 30
    if device.tdp_w is not None:
        assert 1e9 <= best / device.tdp_w <= 3e12, "FLOP per joule"
        assert device.idle_w < device.tdp_w
    if device.l2_bytes is not None:
        assert device.l2_bytes < device.memory_bytes


@pytest.mark.parametrize(
    "device",
    [d for d in DEVICES if d.vendor in ("NVIDIA", "AMD") and d.kind == "GPU" and d.clock_hz],
    ids=lambda d: d.id,
)
def test_fp32_peak_is_cores_times_clock(device):
    # Independent check of multiprocessors, clock and peak: lanes a multiprocessor x 2 x clock.
    lanes = 128
    if device.architecture in ("volta", "turing", "pascal") or device.id.startswith(
        ("a100", "a800", "a30", "mi50", "mi100", "mi2")
    ):
        lanes = 128 if device.id == "p40" else 64
    peak = device.multiprocessors * lanes * 2 * device.clock_hz
    if device.id == "h20":  # its peaks are capped by contract, not by its clock
        return
    assert peak == pytest.approx(device.peak_dense_flop_per_s["fp32"], rel=0.03)


# Dense peaks as the vendors' datasheets state them, headlines with sparsity halved: TFLOP/s, GB/s, GiB.
KNOWN = [
    ("v100-sxm2-32gb", "fp16", 125, 900, 32),
    ("t4", "fp16", 65, 320, 16),
    ("a100-sxm-40gb", "bf16", 312, 1555, 40),
    ("a100-sxm-80gb", "bf16", 312, 2039, 80),
    ("a100-sxm-80gb", "int8", 624, 2039, 80),
    ("a10", "bf16", 125, 600, 24),
    ("l4", "fp8", 242, 300, 24),
    ("l40s", "bf16", 362, 864, 48),
    ("h100-sxm", "bf16", 989, 3350, 80),
    ("h100-sxm", "fp8", 1979, 3350, 80),
    ("h100-pcie", "bf16", 756.5, 2000, 80),
    ("h200-sxm", "bf16", 989, 4800, 141),
    ("b200", "fp4", 9000, 8000, 180),
    ("gb200", "bf16", 2500, 8000, 186),
    ("rtx-4090", "fp16", 165.2, 1010, 24),
    ("rtx-3090", "fp16", 71, 936.2, 24),
    ("rtx-5090", "fp4", 1676, 1790, 32),
    ("mi250x", "bf16", 383, 3277, 128),
    ("mi300x", "bf16", 1307, 5300, 192),
    ("mi300x", "fp8", 2615, 5300, 192),
    ("mi355x", "fp4", 10100, 8000, 288),
    ("tpu-v4", "bf16", 275, 1228, 32),
    ("tpu-v5e", "bf16", 197, 819, 16),
    ("tpu-v5p", "bf16", 459, 2765, 95),
    ("tpu-v6e", "bf16", 918, 1640, 32),
    ("trainium2", "bf16", 667, 2900, 96),
    ("gaudi2", "bf16", 432, 2460, 96),
    ("jetson-agx-orin-64gb", "int8", 85, 204.8, 64),
    ("apple-m3-max-40", "fp32", 14.2, 400, 128),
]


@pytest.mark.parametrize(("name", "dtype", "tflops", "gbps", "gib"), KNOWN, ids=lambda value: str(value))
def test_known_datasheets_dense(name, dtype, tflops, gbps, gib):
    device = load_device(name)
    assert device.peak_dense_flop_per_s[dtype] == pytest.approx(tflops * 1e12, rel=1e-9)
    assert device.memory_bytes_per_s == pytest.approx(gbps * 1e9, rel=1e-9)
    assert device.memory_bytes == gib * 2**30


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("h100", "h100-sxm"), ("H100", "h100-sxm"), ("nvidia h100", "h100-sxm"), ("a100", "a100-sxm-80gb"), ("4090", "rtx-4090"),
        ("m3-max", "apple-m3-max-40"), ("mi300", "mi300x"), ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("Tesla T4", "t4"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"), ("NVIDIA H100 80GB HBM3", "h100-sxm"), ("NVIDIA H200", "h200-sxm"),
        ("Tesla V100-SXM2-16GB", "v100-sxm2-16gb"), ("AMD Instinct MI300X", "mi300x"), ("TPU_v5p", "tpu-v5p"), ("M1 Ultra", "apple-m1-ultra"),
        ("raspberry pi 5", "raspberry-pi-5"), ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
    ],
)  # fmt: skip
def test_names_are_forgiving(asked, found):
    assert load_device(asked).id == found


@pytest.mark.parametrize("section", ["devices", "clusters"])
def test_aliases_stand_for_entries_that_exist_and_hide_none(section):
    known = set(entry.ids(section, ()))
    aliases = entry.aliases(section, ())
    assert aliases
    assert set(aliases.values()) <= known
    assert not set(aliases) & known
    assert "" not in aliases


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "..\\x",
        "a/../../b",
        "x" * 5000,
        "h100\0",
        "aliases",
        "défaut",
        "-",
        "~",
    ],
)
def test_no_name_leads_out_of_the_catalogue(name):
    with pytest.raises(UnknownNameError) as caught:
        load_device(name)
    assert "\n" not in str(caught.value)


def test_a_slip_gets_the_nearest_names():
    with pytest.raises(UnknownNameError, match=r"did you mean.*h100-sxm"):
        load_device("h100-sxn")


def test_search():
    assert [device.id for device in list_devices("nvidia h200-s")] == ["h200-sxm"]
    assert {device.kind for device in list_devices(kind="tpu")} == {"TPU"}
    assert {device.vendor for device in list_devices(vendor="amd")} == {"AMD"}
    assert "trainium2" in [device.id for device in list_devices("trn2")]
    assert [(d.vendor.lower(), d.id) for d in DEVICES] == sorted((d.vendor.lower(), d.id) for d in DEVICES)
    assert list_devices("no such device") == []


def test_numbers_keep_their_source_through_records_copies_and_json():
    device = load_device("h100-sxm")
    peak = device.peak_dense_flop_per_s["bf16"]
    assert peak.label == "dense bf16 peak of h100-sxm"
    assert "(2025)" in peak.source
    copies = (
        replace(device, name="x").peak_dense_flop_per_s["bf16"],
        asdict(device)["peak_dense_flop_per_s"]["bf16"],
        pickle.loads(pickle.dumps(device)).peak_dense_flop_per_s["bf16"],
    )
    for copy in copies:
        assert (copy, copy.source, copy.tag) == (peak, peak.source, "catalogue")
    assert json.loads(json.dumps(asdict(device)))["memory_bytes"] == 80 * 2**30
    assert "not re-read" in device.clock_hz.source


def test_an_unpublished_idle_power_is_an_assumption_a_published_one_is_not():
    assert load_device("h100-sxm").idle_w.tag == "default"
    assert load_device("tpu-v4").idle_w.tag == "catalogue"
    assert load_device("tpu-v5e").tdp_w is None
    assert load_device("tpu-v5e").idle_w is None


MINE = """
id = "mine"
name = "Mine"
vendor = "Me"
kind = "GPU"
architecture = "hopper"
year = { value = 2026, unit = "year", source = "s" }
memory = { value = 96, unit = "GiB", source = "s" }
memory_bandwidth = { value = 3.9, unit = "TB/s", source = "s" }
[peak]
bf16 = { value = 900, unit = "TFLOP/s", source = "s" }
[sources.s]
title = "Data sheet"
date = "2026-03"
checked = true
"""


def folder(tmp_path, text, name="mine"):
    (tmp_path / "devices").mkdir(exist_ok=True)
    (tmp_path / "devices" / f"{name}.toml").write_text(text, "utf-8")
    return (str(tmp_path),)


def test_a_users_device_is_found_first_and_tagged(tmp_path):
    folders = folder(tmp_path, MINE)
    mine = load_device("mine", folders)
    assert mine.origin == str(tmp_path)
    assert mine.memory_bytes.tag == "user"
    assert mine.memory_bytes.source == "Data sheet (2026-03)"
    assert mine.memory_bytes == 96 * 2**30
    assert mine in [replace(device, aliases=()) for device in list_devices(folders=folders)]
    folder(tmp_path, MINE.replace('"mine"', '"h100-sxm"'), "h100-sxm")
    for name in ("h100-sxm", "h100", "nvidia h100"):  # a shipped alias finds the user's own file
        assert load_device(name, folders).memory_bytes == 96 * 2**30
    assert load_device("h100").memory_bytes == 80 * 2**30
    (tmp_path / "devices" / "aliases.toml").write_text('[aliases]\n"card" = "mine"\n', "utf-8")
    assert load_device("card", folders).id == "mine"
    assert default_cluster(mine, 2).devices == 2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"s" }\n[peak]', '"t" }\n[peak]', r"no table \[sources.t\]"),
        (', source = "s" }\n[peak]', " }\n[peak]", "memory_bandwidth has no source"),
        ('date = "2026-03"\n', "", "sources.s has the date missing"),
        ('"2026-03"', '"last week"', "give a year"),
        ('"2026-03"', '"2026-13"', "give a year"),
        ('title = "Data sheet"', 'title = " "', "sources.s has the title"),
        ("value = 96", "value = -96", "memory is -96 GiB"),
        ("value = 96", "value = nan", "memory: "),
        ("value = 96", "value = inf", "memory: "),
        ("value = 96", "value = true", "memory has the value True"),
        ("value = 96", 'value = "96"', "memory has the value '96'"),
        ("value = 96", "value = 1e300", "too large"),
        ("value = 96", "value = " + "9" * 400, "memory"),
        ("value = 900", "value = 900e9", "which no peak can be"),
        ('"GiB"', '"GHz"', "memory: "),
        ('"GiB"', '"Gib"', "memory: "),
        ('"GiB"', "7", "memory has the unit 7"),
        ('unit = "year"', 'unit = "1"', "year has the unit"),
        ("[peak]", "[peaks]", r"\[peak\] is missing"),
        ("bf16 =", "bf17 =", "unknown key 'bf17'.*bf16"),
        ('kind = "GPU"', 'kind = "gpu"', "give one of GPU"),
        ('name = "Mine"', "name = 7", "name is 7"),
        ('name = "Mine"\n', "", "name is missing"),
        ('name = "Mine"', 'name = "Mine"\ntpd = { value = 1, unit = "W", source = "s" }', "unknown key 'tpd': did you mean tdp"),
        ("memory = { value = 96", "memory = 96 # { value = 96", "no number is taken without its source"),
        ('unit = "GiB"', 'unit = "GiB", note = "x"', "unknown word 'note'"),
        ("checked = true", 'checked = "yes"', "checked is true or false"),
        ("checked = true", 'link = "x"', "unknown word 'link'"),
        ('id = "mine"', 'id = "yours"', "not the file's name"),
        ("[sources.s]", "[sources.s", "not a TOML file"),
        ("[peak]", "x = " + "[" * 900, "not a TOML file"),
        ("[peak]", "a." * 5000 + "b = 1", "has a line longer than"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_refused_in_one_line(tmp_path, old, new, says):
    assert old in MINE
    folders = folder(tmp_path, MINE.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=says) as caught:
        load_device("mine", folders)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500 + len(str(tmp_path))
    assert str(tmp_path) in message


def test_faulty_folders_and_files(tmp_path):
    with pytest.raises(FileFormatError, match="no such catalogue folder"):
        load_device("h100", (str(tmp_path / "none"),))
    (tmp_path / "devices").mkdir()
    assert load_device("h100", (str(tmp_path),)).origin == "catalogue"
    (tmp_path / "devices" / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="not a TOML file"):
        load_device("bad", (str(tmp_path),))
    (tmp_path / "devices" / "big.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(FileFormatError, match="larger than"):
        load_device("big", (str(tmp_path),))
    (tmp_path / "devices" / "loop.toml").symlink_to(tmp_path / "devices" / "loop.toml")
    with pytest.raises(CapacityError):
        load_device("loop", (str(tmp_path),))


def test_the_package_offers_every_loader():
    assert sorted(catalogue.__all__) == dir(catalogue)
    for name in catalogue.__all__:
        assert callable(getattr(catalogue, name))
    with pytest.raises(AttributeError):
        catalogue.load_nothing  # noqa: B018


def test_the_documented_example_works(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text("utf-8")
    blocks = re.findall(r"((?:^    .*\n|^\n)+)", text, re.MULTILINE)
    written = 0
    for block in blocks:
        lines = [line[4:] for line in block.strip("\n").splitlines()]
        if lines and lines[0].startswith("my-catalogue/"):
            path = tmp_path / lines[0].strip()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines[1:]), "utf-8")
            written += 1
    assert written == 2
    folders = (str(tmp_path / "my-catalogue"),)
    assert load_device("my-card", folders).usd_per_hour == 1.8
    room = catalogue.load_cluster("our-room", nodes=2, folders=folders)
    assert (room.devices, room.host_w, room.pue, room.usd_per_device_hour) == (16, 2200.0, 1.3, 2.0)
    assert room.inter.bytes_per_s == 12.5e9
    assert room.inter.latency_s == 6e-6
    assert room.pue.tag == "user"
