"""Cases of a sweep, its frames and fronts, what it keeps, and what it says of bad rows."""

import json
import math
import os

import numpy as np
import pandas as pd
import pytest

import capacity
from capacity.cli import main
from capacity.errors import CapacityError, FileFormatError, InputError, UnknownNameError
from capacity.sweeps.cases import Filed, Grid, read_cases, values_of
from capacity.sweeps.pareto import undominated
from capacity.sweeps.run import sweep
from capacity.sweeps.store import Store

LAYOUT = {"pp": 1, "zero": 1, "micro_batch": 1, "recompute": "full", "batch": 64, "devices": 8}


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("tp", "1,2,4,8", (1.0, 2.0, 4.0, 8.0)),
        ("tp", "1:8:x2", (1.0, 2.0, 4.0, 8.0)),
        ("params", "1e9:1e11:log3", (1e9, 1e10, 1e11)),
        ("params", "7B, 70B", (7e9, 7e10)),
        ("prefix_hit", "0:1:lin5", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("device", "h100-sxm, b200", ("h100-sxm", "b200")),
        ("tpot_slo", "50ms", (0.05,)),
    ],
)
def test_values_of_an_axis(name, text, values):
    assert values_of(name, text) == pytest.approx(values) if name != "device" else values_of(name, text) == values


@pytest.mark.parametrize(
    "text", ["tp", "tp=", "tp=1:8:2", "tp=8:1:x2", "tp=0:8:x2", "tp=1:8:log0", "tp=1,,2", "tp=a:b:x2"]
)
def test_an_axis_that_makes_no_sense_is_one_line(text):
    with pytest.raises(CapacityError) as refused:
        read_cases(None, [text])
    assert "\n" not in str(refused.value)


def test_an_unknown_axis_is_told_the_nearest():
    with pytest.raises(UnknownNameError, match="seq_len"):
        read_cases(None, ["seqlen=1,2"])


def test_a_grid_makes_the_rows_that_are_asked_for():
    grid = Grid({"tp": (1.0, 2.0, 4.0), "device": ("h100-sxm", "b200"), "pp": (1.0, 2.0)})
    whole = grid.frame(0, grid.rows)
    assert grid.rows == len(whole) == 12
    assert len(whole.drop_duplicates()) == 12
    assert whole["pp"].tolist()[:3] == [1.0, 2.0, 1.0]
    blocks = pd.concat([block.astype({"device": str}) for block in grid.blocks(5)], ignore_index=True)
    pd.testing.assert_frame_equal(blocks, whole.astype({"device": str}))
    # A grid may be larger than any memory.
    huge = Grid(
        {"params": tuple(np.geomspace(1e9, 1e12, 1000)), "price": tuple(np.linspace(1, 9, 100_000)), "tp": (1.0, 2.0)}
    )
    assert huge.rows == 200_000_000
    last = huge.frame(huge.rows - 1, huge.rows)
    assert last.iloc[0].tolist() == pytest.approx([1e12, 9.0, 2.0])


@pytest.mark.parametrize("ending", ["csv", "parquet", "toml"])
def test_cases_of_a_file(tmp_path, ending):
    path = str(tmp_path / f"cases.{ending}")
    frame = pd.DataFrame(
        {"id": ["a", "b", "c"], "params": [7e9, 13e9, 7e9], "tp": [1, 2, 3], "price": [np.nan, 2.0, 3.0]}
    )
    if ending == "csv":
        frame.to_csv(path, index=False)
    elif ending == "parquet":
        frame.to_parquet(path)
    else:
        with open(path, "w") as file:
            file.write('[shared]\nmode = "train"\n')
            for row in frame.to_dict("records"):
                file.writelines(
                    ["[[case]]\n", *(f"{key} = {value!r}\n" for key, value in row.items() if value == value)]
                )
    cases, shared = read_cases(path, [])
    assert cases.rows == 3
    answers = str(tmp_path / "answers.parquet")
    found = sweep(cases, LAYOUT | {"mode": "train"} | shared, output=answers, block_rows=2)
    rows = pd.read_parquet(answers)
    assert found.errors == 1
    assert rows["id"].tolist() == ["a", "b", "c"]
    assert "does not divide" in rows["error"][2]
    assert rows["error"][:2].isna().all()
    alone = capacity.estimate(**LAYOUT, mode="train", params=13e9, tp=2, price=2.0).sections["train"].quantities
    assert rows["train.cost"][1] == pytest.approx(alone["cost"].mid, rel=1e-9)
    assert math.isnan(rows["train.step_time"][2])


def test_a_grid_in_a_file(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        '[shared]\ndevice = "h100-sxm"\n[sweep]\nparams = "1e9:1e12:log4"\ntp = [1, 2]\nrecompute = ["none", "full"]\n'
    )
    cases, shared = read_cases(str(path), ["pp=1,2"])
    assert shared == {"device": "h100-sxm"}
    assert cases.rows == 32
    path.write_text("[sweep]\n[[case]]\ntp = 1\n[other]\n")
    with pytest.raises(UnknownNameError, match="other"):
        read_cases(str(path), [])


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "cases.parquet").write_bytes(b"no parquet")
    for name in ("missing.csv", "cases.parquet"):
        with pytest.raises(FileFormatError):
            read_cases(str(tmp_path / name), [])
    with pytest.raises(InputError, match="toml"):
        read_cases(str(tmp_path / "cases.xlsx"), [])


def test_a_frame_in_and_out():
    cases = pd.DataFrame(
        {"name": ["x", "y", "z"], "params": ["7B", "70B", "many"], "tp": [1, 8, 1], "precision": ["bf16", None, "fp8"]},
        index=[5, 6, 7],
    )
    found = capacity.estimate_frame(cases, mode="train", **LAYOUT)
    assert found.index.tolist() == [5, 6, 7]
    assert found["name"].tolist() == ["x", "y", "z"]
    assert found["train.step_time"].dtype == np.float64
    assert "many" in found["error"][7]
    alone = capacity.estimate(params=70e9, tp=8, mode="train", **LAYOUT).sections["train"]
    assert found["train.mfu"][6] == pytest.approx(alone.quantities["mfu"].mid, rel=1e-9)
    assert found["train.fits"].tolist()[:2] == [1.0, 0.0]
    chosen = capacity.estimate_frame(cases, mode="train", columns=["step_time", "train.cost"], **LAYOUT)
    assert set(chosen) - set(cases) == {"train.step_time", "train.cost", "train.fits", "error"}
    with pytest.raises(UnknownNameError, match="tp"):
        capacity.estimate_frame(cases.rename(columns={"tp": "tpp"}), mode="train")


def test_intervals_are_those_of_one_estimate():
    cases = pd.DataFrame({"params": [7e9, 8e9], "tp": [1, 2]})
    found = capacity.estimate_frame(cases, intervals=True, mode="train", device="b200", **LAYOUT)
    for row, case in cases.iterrows():
        section = capacity.estimate(mode="train", device="b200", **case, **LAYOUT).sections["train"]
        for name, quantity in section.quantities.items():
            for end in ("low", "high"):
                assert found[f"train.{name}_{end}"][row] == pytest.approx(getattr(quantity, end), rel=1e-9), name


@pytest.mark.parametrize(("more", "singly"), [({}, 0), ({"kv_keep": "1h", "storage": "nvme-gen4"}, 3)])
def test_what_takes_no_columns_is_estimated_one_by_one_and_counted(more, singly):
    cases = pd.DataFrame({"model": ["llama-3.1-8b"] * 4, "concurrency": [1, 8, 8, 64], "tp": [1, 1, 1, 3]})
    found = capacity.estimate_frame(cases, mode="serve", **more)
    assert found.attrs["priced singly"] == singly  # equal cases are one
    assert "does not divide" in found["error"][3]
    alone = capacity.estimate(model="llama-3.1-8b", mode="serve", concurrency=8, tp=1, **more).sections["serve"]
    assert found["serve.tpot"][1] == found["serve.tpot"][2] == pytest.approx(alone.quantities["tpot"].mid, rel=1e-9)


def test_prompts_of_one_token_among_longer_ones_are_each_priced_as_they_are():
    # What is left of a prompt of this model's own length is one token in one row, and more in the other.
    cases = pd.DataFrame({"prefix_hit": [0.999, 0.3, 0.3, 0.999]})
    found = capacity.estimate_frame(cases, mode="serve", model="t5-base")
    for row, hit in enumerate(cases["prefix_hit"]):
        alone = capacity.estimate(model="t5-base", mode="serve", prefix_hit=hit).sections["serve"]
        assert found["serve.ttft"][row] == pytest.approx(alone.quantities["ttft"].mid, rel=1e-9)


@pytest.mark.parametrize("goals", [1, 2, 3])
def test_no_row_beats_one_of_the_front_and_one_beats_any_other(goals):
    costs = np.random.default_rng(goals).integers(0, 12, (300, goals)).astype(float)
    kept = set(undominated(costs))

    def beats(a, b):
        return (a <= b).all() and (a < b).any()

    for row, cost in enumerate(costs):
        beaten = any(beats(other, cost) for other in costs)
        equal = any((costs[one] == cost).all() for one in kept)
        assert beaten != equal
        assert row not in kept or not beaten


def test_what_is_there_is_not_written_over(tmp_path):
    grid, path = {"tp": [1, 2]}, str(tmp_path / "rows")
    shared = LAYOUT | {"mode": "train", "params": 7e9}
    sweep(grid, shared, output=path)
    before = (tmp_path / "rows" / "part-00000000.parquet").read_bytes()
    with pytest.raises(InputError, match="--resume"):
        sweep(grid, shared, output=path)
    with pytest.raises(InputError, match="another sweep"):
        sweep(grid, shared | {"batch": 128}, output=path, resume=True)
    assert sweep(grid, shared, output=path, resume=True).resumed == 2
    assert (tmp_path / "rows" / "part-00000000.parquet").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="something else"):
        sweep(grid, shared, output=str(tmp_path / "mine"), resume=True)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_blocks_with_other_quantities_become_one_table(tmp_path, ending):
    # Only the second block has a pipeline, and a part of the step for it; only the third has no answer.
    cases = pd.DataFrame({"params": [7e9] * 5, "pp": [1, 1, 2, 2, 64], "tp": [1, 2, 1, 2, 1]})
    path = str(tmp_path / f"rows.{ending}")
    sweep(cases, LAYOUT | {"mode": "train"}, output=path, block_rows=2)
    rows = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    assert os.listdir(tmp_path) == [f"rows.{ending}"]
    assert len(rows) == 5
    bubble = rows["train.time.pipeline bubble"]
    assert (bubble[:2] == 0.0).all()
    assert (bubble[2:4] > 0.0).all()
    assert math.isnan(bubble[4])


def test_a_store_of_a_folder_that_cannot_be():
    with pytest.raises(InputError, match="cannot be written"):
        Store.at("/proc/nowhere/rows").begin({}, resume=False)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("step_tme", "step_time"), ("train.cots", "train.cost"), ("time.GEM", "time.GEMM"), ("banana", "shows the names")],
)
def test_a_misspelt_quantity_is_refused_before_any_row_is_kept(tmp_path, name, nearest):
    grid = {"tp": [1.0, 2.0], "pp": [1.0, 2.0], "price": np.linspace(1.0, 2.0, 50).tolist()}
    shared = {"params": 7e9, "mode": "train", "devices": 8} | {one: LAYOUT[one] for one in LAYOUT if one not in grid}
    with pytest.raises(UnknownNameError, match=nearest):
        sweep(grid, shared, output=str(tmp_path / "rows"), columns=["step_time", name])
    assert not (tmp_path / "rows").exists()
    # What only some rows have, ends of intervals and options of the cases are no slips; nor is what other models have.
    kept = ["time.pipeline bubble", "cost_low", "train.cost", "tp", "time.expert routing"]
    assert sweep(grid, shared, columns=kept, intervals=True).lacking == ("time.expert routing",)


def test_memory_does_not_grow_with_rows(tmp_path):
    grid = Grid({"price": tuple(np.linspace(1.0, 2.0, 30_000)), "tp": (1.0, 2.0)})
    shared = LAYOUT | {"mode": "train", "params": 7e9}
    alive = []

    def progress(done, rows, seconds):
        import psutil

        alive.append(psutil.Process().memory_info().rss)

    sweep(grid, shared, output=str(tmp_path / "rows"), block_rows=6000, progress=progress, pareto="time,cost")
    assert len(alive) == 10
    assert max(alive[5:]) < max(alive[:5]) + 20e6


def test_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    fixed = ["--mode", "train", "--model", "llama-3.1-70b", "--devices", "64", "--batch", "512", "--zero", "1"]
    fixed += ["--micro-batch", "1"]
    axes = ["--sweep", "tp=1,2,3,8", "--sweep", "pp=1:4:x2", "--sweep", "recompute=none,full"]
    monkeypatch.chdir(tmp_path)
    out = "rows.csv"
    assert main(["sweep", *fixed, *axes, "--pareto", "time,memory", "--output", out]) == 0
    screen, said = capsys.readouterr()
    assert all(len(line) <= 80 for line in screen.splitlines())
    assert "24 cases" in screen
    assert "do not fit" in screen
    assert said == ""
    rows = pd.read_csv(out)
    assert len(rows) == 24
    assert main(["sweep", *fixed, *axes, "--pareto", "time,memory", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cases"] == 24
    assert told["errors"] == rows["error"].notna().sum() == 6
    fitting = rows[rows["train.fits"] == 1.0]
    best = min(told["rows"], key=lambda row: row["train.run_time"])
    assert best["train.run_time"] == pytest.approx(fitting["train.run_time"].min(), rel=1e-9)
    assert main(["sweep", *fixed, *axes, "--pareto", "tim"]) == 2
    assert "objective" in capsys.readouterr().err
    assert main(["sweep"]) == 2
    assert main(["sweep", *fixed, *axes, "--output", out]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["sweep", *fixed, *axes, "--output", out, "--resume"]) == 2  # nothing is left to do


def test_counting_lines_of_a_file(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("tp\n1\n2\n")
    assert read_cases(str(path), [])[0] == Filed(str(path), 2)


def test_rows_of_every_kind_in_one_frame():
    cases = pd.DataFrame(
        {
            "params": [7e9, 7e9, None, 1e20, None, 7e9],
            "model": [None, None, "llama-3.1-8b", None, "lama", "llama-3.1-8b"],
            "mode": ["train", None, "serve", "train", "train", "train"],
            "storage": ["aws-s3", None, None, None, None, None],
            "tp": ["1", "2", None, "1", "1", "1"],
        }
    )
    found = capacity.estimate_frame(cases, devices=8)
    assert found["train.fits"].notna().tolist() == [True, True, False, False, False, False]
    assert found["serve.fits"].notna().tolist() == [False, True, True, False, False, False]
    assert found["platform.stored"].notna().tolist() == [True, False, False, False, False, False]
    assert found["error"].isna().tolist() == [True, True, True, False, False, False]
    assert "1e+13" in found["error"][3]
    assert "llama" in found["error"][4]
    assert "--params and --model" in found["error"][5]
