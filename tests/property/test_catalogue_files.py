"""A catalogue file, however mangled, is either read or refused in one line."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from capacity.catalogue import entry
from capacity.catalogue.clusters import load_cluster
from capacity.catalogue.devices import load_device
from capacity.catalogue.grids import load_grid
from capacity.errors import CapacityError
from capacity.formula import Sourced

SHIPPED = Path(entry.SHIPPED)
DEVICE = (SHIPPED / "devices" / "nvidia" / "h100-sxm.toml").read_bytes()
CLUSTER = (SHIPPED / "clusters" / "aws-p5-48xlarge.toml").read_bytes()
MANY = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(min_value=10**300), st.floats(), st.text(max_size=20), st.just([]), st.just({}),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.sampled_from(["value", "unit", "source", "x"]), st.integers(), max_size=3),
)  # fmt: skip


def outcome(action):
    """What an action returns, or None for an error a user may be shown."""
    try:
        return action()
    except CapacityError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 3000
        return None


def cut_and_paste(text: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, new in edits:
        start = at % (len(text) + 1)
        text = text[:start] + new + text[start + length :]
    return text


EDITS = st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 40), st.binary(max_size=12)), min_size=1, max_size=4)


@MANY
@given(edits=EDITS)
@example(edits=[(0, 10**4, b"")])
@example(edits=[(0, 0, b"[" * 20000)])
@example(edits=[(0, 0, b"a." * 20000)])
@example(edits=[(0, 0, b"x = 1" + b"0" * 5000 + b"\n")])
def test_mangled_bytes(tmp_path, edits):
    folder = tmp_path / "devices"
    folder.mkdir(exist_ok=True)
    (folder / "h100-sxm.toml").write_bytes(cut_and_paste(DEVICE, edits))
    device = outcome(lambda: load_device("h100-sxm", (str(tmp_path),)))
    assert device is None or device.memory_bytes > 0
    folder = tmp_path / "clusters"
    folder.mkdir(exist_ok=True)
    (folder / "aws-p5-48xlarge.toml").write_bytes(cut_and_paste(CLUSTER, edits))
    cluster = outcome(lambda: load_cluster("aws-p5-48xlarge", folders=(str(tmp_path),)))
    assert cluster is None or cluster.devices > 0


def places(table, above=()):
    """Where there is a value in a tree of tables."""
    for key, value in table.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


PLACES = sorted(places(tomllib.loads(DEVICE.decode())))


@MANY
@given(where=st.sampled_from(PLACES), value=SCALARS)
def test_any_value_of_another_type(tmp_path, monkeypatch, where, value):
    # As tomllib would have read it: every key in turn holds what does not belong there.
    (tmp_path / "devices").mkdir(exist_ok=True)
    (tmp_path / "devices" / "h100-sxm.toml").write_bytes(DEVICE)
    data = tomllib.loads(DEVICE.decode())
    table = data
    for key in where[:-1]:
        table = table[key]
    if value is None:
        del table[where[-1]]
    else:
        table[where[-1]] = value
    with monkeypatch.context() as patch:
        patch.setattr(entry, "_parse", lambda _, keep: data)
        device = outcome(lambda: load_device("h100-sxm", (str(tmp_path),)))
    if device is not None:
        assert device.origin == str(tmp_path)
        assert all(isinstance(peak, Sourced) and peak.source for peak in device.peak_dense_flop_per_s.values())
        assert 0 < device.memory_bytes < 1e17


@settings(MANY, max_examples=100)  # a name nobody knows is compared with every known one
@given(name=st.text(max_size=60) | st.from_regex(r"\A[a-z0-9./:\\-]{0,30}\Z"))
def test_any_name(name):
    for load in (load_device, load_cluster, load_grid):
        found = outcome(lambda load=load: load(name))
        if found is not None and load is not load_grid:
            assert entry.normalised(found.id) == found.id


@pytest.mark.parametrize("unit", ["GB", "GiB", "MB", "TB", "KiB"])
def test_units_are_not_mixed(tmp_path, unit):
    folder = tmp_path / "devices"
    folder.mkdir()
    (folder / "h100-sxm.toml").write_bytes(
        DEVICE.replace(b'value = 80, unit = "GiB"', f'value = 80, unit = "{unit}"'.encode())
    )
    factor = {"GB": 10**9, "GiB": 2**30, "MB": 10**6, "TB": 10**12, "KiB": 2**10}[unit]
    assert load_device("h100-sxm", (str(tmp_path),)).memory_bytes == 80 * factor
