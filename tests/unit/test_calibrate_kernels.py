"""`capacity calibrate kernels`: parameters found again from tables made with them, and files whole or not at all."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from capacity.calibration.fit import fit
from capacity.calibration.kernel_rows import tenths
from capacity.calibration.kernels import UNSEEN_TENTHS, shipped_start
from capacity.catalogue import load_device
from capacity.errors import FileFormatError
from capacity.laws.kernels.facts import facts_of
from capacity.laws.kernels.parameters import SPECS, Parameter
from capacity.laws.kernels.profile import fitted_parameters
from capacity.laws.kernels.tables import seconds
from capacity.toml_file import read_toml
from capacity.validation import validate
from capacity.validation.kernels import read_tables
from capacity.validation.tables import CURATED
from capacity.whole_file import write_whole

LINE = {
    "a": Parameter(1.0, 0.01, 100.0, 1.0, "offset"),
    "b": Parameter(1.0, 0.01, 100.0, 1.0, "slope"),
    "c": Parameter(1.0, 0.01, 100.0, 1.0, "of no effect"),
}


def line(x):
    return lambda p, rows: p["a"] + p["b"] * (x if rows is None else x[rows])


def noisy(seed=0, count=400):
    chance = np.random.default_rng(seed)
    x = 10.0 ** chance.uniform(-2, 2, count)
    return x, (3.0 + 0.5 * x) * np.exp(0.05 * chance.standard_normal(count))


def test_the_fit_finds_what_made_the_data_and_says_how_sure_it_is():
    hits = 0
    for seed in range(20):
        x, measured = noisy(seed)
        found = fit(line(x), measured, LINE, {"a": 1.0, "b": 1.0, "c": 2.0}, hops=0)
        assert found.parameters["a"] == pytest.approx(3.0, rel=0.03)
        assert found.parameters["b"] == pytest.approx(0.5, rel=0.03)
        hits += abs(np.log(found.parameters["a"] / 3.0)) < 1.64 * found.uncertainty["a"]
    # 90 % intervals: of 20, between 14 and 20 hold the truth but once in a hundred.
    assert 14 <= hits <= 20
    # What the data do not know stays at the prior, as unsure as the prior was.
    assert found.parameters["c"] == pytest.approx(2.0, rel=1e-3)
    assert found.uncertainty["c"] > 0.5


def test_a_tenth_of_the_rows_ten_times_too_slow_bends_nothing():
    x, measured = noisy()
    measured[::10] *= 10.0
    found = fit(line(x), measured, LINE, {"a": 1.0, "b": 1.0})
    assert found.parameters["a"] == pytest.approx(3.0, rel=0.05)
    assert found.parameters["b"] == pytest.approx(0.5, rel=0.05)


def test_bounds_hold():
    x, measured = noisy()
    tight = {**LINE, "a": Parameter(1.0, 0.5, 2.0, 1.0, "offset")}
    assert fit(line(x), measured, tight, {"a": 1.0, "b": 1.0}).parameters["a"] == pytest.approx(2.0, rel=1e-3)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Decode attention of two devices as the shipped laws have it, a twentieth of noise, some rows impossible."""
    folder = tmp_path_factory.mktemp("measured")
    chance = np.random.default_rng(3)
    rows = []
    for name, slower in (("h100_sxm", 1.0), ("b200_sxm", 1.4)):
        device = load_device(name)
        parameters = dict(fitted_parameters(device, "decode", "bfloat16").parameters)
        parameters["t0"] *= slower
        count = 240
        table = {
            "device": np.full(count, name, dtype=object),
            "engine": np.full(count, "best", dtype=object),
            "kv_dtype": np.full(count, "bfloat16", dtype=object),
            "batch": 2 ** chance.integers(0, 8, count),
            "context_len": 2 ** chance.integers(4, 15, count),
            "n_kv_heads": 2 ** chance.integers(0, 4, count),
            "head_dim": np.full(count, 128),
            "window": np.zeros(count, dtype=int),
        }
        table["n_heads"] = table["n_kv_heads"] * 2 ** chance.integers(0, 4, count)
        floats = {key: value if value.dtype == object else value.astype(float) for key, value in table.items()}
        made = seconds("decode", facts_of(device), parameters, "bfloat16", floats)
        table["seconds"] = made * np.exp(0.05 * chance.standard_normal(count))
        rows.append(pd.DataFrame(table))
    whole = pd.concat(rows).drop_duplicates(["device", "batch", "context_len", "n_heads", "n_kv_heads"])
    impossible = (whole["batch"] * whole["context_len"] * whole["n_kv_heads"] >= 2**21).to_numpy()
    whole.loc[impossible, "seconds"] /= 20.0
    slower = whole.assign(engine="vllm 0.1", seconds=whole["seconds"] * 1.25)
    pd.concat([whole, slower]).to_csv(folder / "attention_decode.csv", index=False)
    return folder, int(impossible.sum())


@pytest.fixture(scope="module")
def profiles(tables, tmp_path_factory):
    output = tmp_path_factory.mktemp("profiles") / "new"
    command = [
        sys.executable,
        "-m",
        "capacity",
        "calibrate",
        "kernels",
        str(tables[0]),
        "--output",
        str(output),
        "--json",
    ]
    command += ["--source", 'made "here"', "--date", "2026-11"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return output, json.loads(done.stdout)


def test_the_command_finds_the_launch_that_was_made_longer(profiles):
    output, report = profiles
    assert sorted(os.listdir(output)) == ["b200.toml", "h100-sxm.toml", "pool.toml"]
    for name, slower in (("h100-sxm", 1.0), ("b200", 1.4)):
        section = read_toml(str(output / f"{name}.toml"), keep=False)["decode"]["bfloat16"]
        shipped = fitted_parameters(load_device(name), "decode", "bfloat16").parameters
        assert section["parameters"]["t0"] == pytest.approx(shipped["t0"] * slower, rel=0.1)
        assert set(section["uncertainty"]) == set(section["parameters"]) == set(SPECS["decode"])
        assert section["range"]["batch"] == [1, 128]
        for low, middle, high in section["residuals"].values():
            assert -0.25 < low < middle < high < 0.25
    for one in report["profiles"]:
        assert one["mdape"] < 0.06


def test_rows_faster_than_memory_are_set_aside_and_counted(profiles, tables):
    assert 0 < sum(one["set_aside"] for one in profiles[1]["profiles"]) <= tables[1]


def test_validation_takes_the_profiles_and_the_engine_its_factor(profiles, tables):
    scores = validate("kernels", str(tables[0]), str(profiles[0]))
    groups = {
        tuple(group["by"].values()): group
        for group in scores["groups"]
        if set(group["by"]) == {"op", "device", "engine"}
    }
    for device in ("h100_sxm", "b200_sxm"):
        assert groups["decode", device, "best"]["mdape"] < 0.06
        assert abs(groups["decode", device, "vllm 0.1"]["bias"]) < 0.03
    shipped = validate("kernels", str(tables[0]))
    assert scores["overall"]["mdape"] < shipped["overall"]["mdape"]


def test_the_pool_tells_what_leaving_an_architecture_out_costs(profiles):
    pool = read_toml(str(profiles[0] / "pool.toml"), keep=False)
    assert set(pool["decode"]["bfloat16"]["errors"]) == {"h100-sxm", "b200"}
    slower, wider = pool["engines"]["vllm"]["decode"]["bfloat16"]
    assert slower == pytest.approx(1.25, rel=0.03)
    assert wider >= 1.0
    assert pool["source"] == "made 'here'"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["kernels"], "name a folder of tables"),
        (["kernel", "x"], "did you mean kernels"),
        (["kernels", "nowhere"], "holds none of the tables"),
        (["kernels", "empty"], "no device of the catalogue has"),
        (["kernels", "lacking"], "lacks the columns"),
    ],
)
def test_bad_input_is_one_line(tmp_path, words, says):
    header = "device,engine,kv_dtype,batch,context_len,n_heads,n_kv_heads,head_dim,window,seconds\n"
    for name, text in (("empty", header + "abacus,best,bfloat16,1,1,1,1,64,0,1\n"), ("lacking", "device,engine\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "attention_decode.csv").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "capacity", "calibrate", *words, "--output", "out"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_fit_has_seen_the_rows_the_project_validates_on():
    for op, table in read_tables(os.path.join(CURATED, "kernels")).items():
        assert set(tenths(op, table)) <= set(UNSEEN_TENTHS), op


def test_a_new_parameter_of_a_law_starts_at_its_first_guess(monkeypatch):
    """Profiles that ship know nothing of it, and calibration is what makes them anew."""
    grown = {**SPECS["decode"], "new": Parameter(7.0, 1.0, 50.0, 1.0, "a term of tomorrow")}
    monkeypatch.setitem(SPECS, "decode", grown)
    with pytest.raises(FileFormatError, match="lacks new"):
        fitted_parameters(load_device("h100-sxm"), "decode", "bfloat16")
    (begin,) = shipped_start("decode", "bfloat16", "h100-sxm")
    assert begin["new"] == 7.0
    assert begin["t0"] != SPECS["decode"]["t0"].start


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    kept = tmp_path / "kept.toml"
    kept.write_text("old")
    write_whole(str(kept), "new")
    assert kept.read_text() == "new"
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(OSError):
        write_whole(str(tmp_path / "folder.toml"), "new")
    assert sorted(os.listdir(tmp_path)) == ["folder.toml", "kept.toml"]
