"""Nodes as they are sold, a cluster for any device, and the electricity they run on."""

import re
import tomllib
from pathlib import Path

import pytest

from capacity.catalogue import entry
from capacity.catalogue.clusters import default_cluster, list_clusters, load_cluster
from capacity.catalogue.devices import SEGMENTS, list_devices, load_device
from capacity.catalogue.grids import (
    list_grids,
    load_defaults,
    load_electricity_price,
    load_grid,
    load_pue,
    segment_table,
)
from capacity.errors import FileFormatError, InputError, UnknownNameError
from capacity.formula import Sourced

SHIPPED = Path(entry.SHIPPED)
CLUSTERS = list_clusters()
DATA_FILES = sorted(
    path
    for path in [*SHIPPED.glob("clusters/*.toml"), *SHIPPED.glob("grids/*.toml"), SHIPPED / "defaults.toml"]
    if path.name != "aliases.toml"
)


@pytest.mark.parametrize("path", DATA_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_datum_has_a_dated_source_and_every_source_is_used(path):
    data = tomllib.loads(path.read_text("utf-8"))
    sources = data.pop("sources")
    used = set()

    def walk(table):
        for value in table.values():
            if isinstance(value, dict) and "value" in value:
                assert set(value) == {"value", "unit", "source"}
                used.add(value["source"])
            elif isinstance(value, dict):
                walk(value)
            else:
                assert isinstance(value, str)

    walk(data)
    assert used == set(sources)
    for source in sources.values():
        assert source["title"]
        assert re.fullmatch(r"(19|20)\d\d(-\d\d){0,2}", source["date"])


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.id)
def test_shipped_clusters_are_sourced_and_plausible(cluster):
    device = cluster.device
    assert cluster.nodes == 1
    assert cluster.devices == cluster.devices_per_node >= 1
    for value in (
        cluster.inter.bytes_per_s,
        cluster.inter.latency_s,
        cluster.host_w,
        cluster.pue,
        cluster.grid_g_per_kwh,
    ):
        assert isinstance(value, Sourced)
        assert value.source
    # No network between nodes is faster than the link inside them.
    if device.link is not None:
        assert cluster.inter.bytes_per_s <= device.link.bytes_per_s
    if device.tdp_w is not None:
        assert 0 < cluster.host_w <= max(1.5 * cluster.devices_per_node * device.tdp_w, 400)
    if cluster.usd_per_device_hour is not None:
        assert 0.2 <= cluster.usd_per_device_hour <= 20
        assert isinstance(cluster.usd_per_device_hour, Sourced)
    assert 1.0 <= cluster.pue <= 1.6


@pytest.mark.parametrize(
    ("name", "device", "devices", "gbit_per_s"),
    [
        ("dgx-h100", "h100-sxm", 8, 3200),
        ("dgx-a100", "a100-sxm-80gb", 8, 1600),
        ("gb200-nvl72", "gb200", 72, 28800),
        ("p5.48xlarge", "h100-sxm", 8, 3200),
        ("AWS p4d.24xlarge", "a100-sxm-40gb", 8, 400),
        ("a3-high", "h100-sxm", 8, 800),
        ("ND H100 v5", "h100-sxm", 8, 3200),
        ("gaudi2", "gaudi2", 8, 2400),
        ("trn1", "trainium1", 16, 800),
    ],
)
def test_known_node_shapes(name, device, devices, gbit_per_s):
    cluster = load_cluster(name, nodes=3)
    assert (cluster.device.id, cluster.devices_per_node, cluster.nodes, cluster.devices) == (
        device,
        devices,
        3,
        3 * devices,
    )
    assert cluster.inter.bytes_per_s * devices * 8 == pytest.approx(gbit_per_s * 1e9)


def test_a_slice_is_one_fabric_of_hosts():
    pod = load_cluster("tpu-v5p", nodes=2240)
    assert pod.devices == 8960
    assert pod.inter.bytes_per_s == pod.device.link.bytes_per_s
    with pytest.raises(InputError, match="2240 at most"):
        load_cluster("tpu-v5p", nodes=2241)


@pytest.mark.parametrize("device", list_devices(), ids=lambda device: device.id)
def test_any_device_makes_a_cluster(device):
    cluster = default_cluster(device, 2)
    assert cluster.devices == 2 * device.devices_per_node
    assert cluster.inter.bytes_per_s > 0
    assert cluster.device.link is not None or cluster.devices_per_node == 1
    assert set(cluster.assumptions) >= {"host_w", "pue", "grid_g_per_kwh"}
    assert all(cluster.assumptions.values())
    assert ("inter" in cluster.assumptions) == (device.network is None)
    for value in (cluster.host_w, cluster.pue, cluster.grid_g_per_kwh):
        assert value.tag == "default"


@pytest.mark.parametrize(
    ("name", "devices", "shape"),
    [
        ("h100-sxm", 1, (1, 1)), ("h100-sxm", 4, (4, 1)), ("h100-sxm", 8, (8, 1)), ("h100-sxm", 12, (6, 2)),
        ("h100-sxm", 1024, (8, 128)), ("rtx-4090", 1, (1, 1)), ("rtx-4090", 2, (2, 1)), ("rtx-4090", 8, (4, 2)),
        ("apple-m3-max-40", 2, (1, 2)), ("gb200", 72, (72, 1)), ("jetson-agx-orin-64gb", 3, (1, 3)),
    ],
)  # fmt: skip
def test_devices_fill_equal_nodes(name, devices, shape):
    cluster = default_cluster(load_device(name), devices=devices)
    assert (cluster.devices_per_node, cluster.nodes) == shape
    assert cluster.devices == devices


@pytest.mark.parametrize("devices", [0, -1, 9, 13, 2.5, True, 10**9, float("nan")])
def test_devices_that_cannot_be(devices):
    with pytest.raises(InputError):
        default_cluster(load_device("h100-sxm"), devices=devices)
    with pytest.raises(InputError):
        load_cluster("dgx-h100", devices=devices)


@pytest.mark.parametrize("nodes", [0, -1, 2.5, True, 10**9, "2"])
def test_nodes_that_cannot_be(nodes):
    with pytest.raises(InputError):
        default_cluster(load_device("h100-sxm"), nodes)
    with pytest.raises(InputError):
        load_cluster("dgx-h100", nodes)


def test_host_power_meets_what_was_measured():
    # Eight H100 and their host were measured at 8.4 kW; the GPUs hold 5.6 of them.
    assert default_cluster(load_device("h100-sxm")).host_w == pytest.approx(2800, rel=0.15)
    assert load_cluster("dgx-h100").host_w == 2800
    # A GB200 NVL72 rack is rated 120 to 132 kW.
    rack = default_cluster(load_device("gb200"))
    assert 110e3 < rack.host_w + 72 * rack.device.tdp_w < 135e3


def test_the_default_grid_is_the_world_and_an_assumption():
    for name in ("", "world", " World "):
        assert (load_grid(name), load_grid(name).tag) == (473.0, "default")
    assert load_cluster("dgx-h100", grid="France").grid_g_per_kwh == 56
    assert "grid_g_per_kwh" not in load_cluster("dgx-h100", grid="France").assumptions


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("FRA", 40, 70), ("France", 40, 70), ("fr", 40, 70), ("Sweden", 10, 50), ("UK", 150, 300), ("usa", 330, 420), ("IND", 600, 800),
        ("POL", 550, 800), ("aws:us-east-1", 300, 450), ("AWS:eu-north-1", 10, 50), ("gcp:europe-west9", 10, 60), ("azure:swedencentral", 10, 50),
    ],
)  # fmt: skip
def test_grids(name, low, high):
    grid = load_grid(name)
    assert low <= grid <= high
    assert grid.tag == "catalogue"
    assert re.search(r"\(20\d\d\)", grid.source)


def test_every_grid_loads():
    names = list_grids()
    assert len(names) > 300
    # One read of each file, rather than of one file for each name.
    for file, kind in (("countries", "country"), ("aws", "region"), ("gcp", "region"), ("azure", "region")):
        table = entry.read_entry(str(SHIPPED / "grids" / f"{file}.toml"), entry.CATALOGUE).table(kind)
        for _, place in table.tables():
            place.text("name")
            place.text("also", "")
            assert place.number("carbon", "grid") is not None or place.number("pue", "ratio") is not None
            place.number("pue", "ratio")
            place.finish()


@pytest.mark.parametrize(
    "name", ["nowhere", "../countries", "aws:mars-1", "moon:base", "aws:", ":", "aws:../gcp", "countries:FRA", "\0"]
)
def test_grids_nobody_knows(name):
    with pytest.raises((UnknownNameError, InputError)) as caught:
        load_grid(name)
    assert "\n" not in str(caught.value)


def test_nearest_grids():
    with pytest.raises(UnknownNameError, match="france"):
        load_grid("Frence")
    with pytest.raises(UnknownNameError, match="aws:us-east-1"):
        load_grid("aws:us-est-1")
    with pytest.raises(InputError, match="no carbon intensity"):
        load_grid("aws:fleet")


def test_pue():
    assert load_pue() == 1.2
    assert load_pue(segment="laptop") == 1.0
    assert load_pue("gcp:us-central1") == 1.1
    assert load_pue("aws") == 1.135
    assert load_pue("aws:ap-east-1") == load_pue("aws")  # a region without its own takes the fleet's
    with pytest.raises(UnknownNameError):
        load_pue("nobody")


def test_electricity():
    assert 0.03 < load_electricity_price() < 0.3
    assert load_electricity_price("DE") == 0.2
    with pytest.raises(UnknownNameError):
        load_electricity_price("moon")


def test_every_segment_has_its_defaults():
    defaults = load_defaults()
    for segment in SEGMENTS:
        table = segment_table(defaults, segment)
        for key, quantity in (
            ("pue", "ratio"), ("host_power", "power"), ("host_share", "share"), ("node_bandwidth", "bandwidth"), ("devices_per_node", "count"),
        ):  # fmt: skip
            assert table.required(key, quantity).source
        table.finish()
    with pytest.raises(FileFormatError, match=r"segment\.moon"):
        segment_table(defaults, "moon")


def test_a_users_files_come_first(tmp_path):
    folders = (str(tmp_path),)
    source = '\n[sources.m]\ntitle = "Our meter"\ndate = "2026-02-01"\nchecked = true\n'
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "countries.toml").write_text(
        '[country.OUR]\nname = "our roof"\ncarbon = { value = 30, unit = "gCO2e/kWh", source = "m" }\n' + source,
        "utf-8",
    )
    assert (load_grid("our roof", folders), load_grid("our roof", folders).tag) == (30, "user")
    assert load_grid("France", folders) == 56
    text = (SHIPPED / "defaults.toml").read_text("utf-8").replace("value = 473", "value = 300")
    (tmp_path / "defaults.toml").write_text(text, "utf-8")
    cluster = default_cluster(load_device("h100", folders), folders=folders)
    assert (cluster.grid_g_per_kwh, cluster.grid_g_per_kwh.tag) == (300, "user")
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "ours.toml").write_text(
        'id = "ours"\nname = "Ours"\ndevice = "h100"\ndevices_per_node = { value = 4, unit = "1", source = "m" }\n'
        + source,
        "utf-8",
    )
    ours = load_cluster("ours", nodes=2, folders=folders)
    assert (ours.origin, ours.devices, ours.device.id, ours.inter) == (str(tmp_path), 8, "h100-sxm", None)
    assert "ours" in [cluster.id for cluster in list_clusters(folders=folders)]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"h100"', '"h1000"', "unknown device"),
        ("value = 4", "value = 0", "devices_per_node is 0"),
        ('name = "Ours"', 'name = "Ours"\nnodes = 3', "unknown key 'nodes'"),
        ("devices_per_node =", "devices =", "devices_per_node is missing"),
        ('id = "ours"', 'id = "theirs"', "not the file's name"),
    ],
)
def test_a_faulty_cluster_is_refused(tmp_path, old, new, says):
    text = (
        'id = "ours"\nname = "Ours"\ndevice = "h100"\ndevices_per_node = { value = 4, unit = "1", source = "m" }\n'
        '[sources.m]\ntitle = "Our meter"\ndate = "2026"\n'
    )
    assert old in text
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "ours.toml").write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises((FileFormatError, UnknownNameError), match=says):
        load_cluster("ours", folders=(str(tmp_path),))
