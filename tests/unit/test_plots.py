"""Figures: what is drawn is what the data says, the same bytes each time, and hostile words stay words."""

from __future__ import annotations

import csv
import itertools
import xml.etree.ElementTree as ET
from functools import cache

import pytest

pytest.importorskip("matplotlib")

from capacity.cli import main
from capacity.cli.plot import FIGURES
from capacity.errors import InputError
from capacity.formulas.schedule import bubble_fraction, pipeline_time_s
from capacity.reporting import documents
from capacity.reporting.figures import pipeline as pipelines
from capacity.reporting.figures.canvas import Sheet, styled, tick
from capacity.reporting.figures.parity import calibration, parity
from capacity.reporting.figures.registry import OF_ESTIMATES, drawing_of

TRAINED = {"params": 7e9, "tokens": 1e11, "device": "h100-sxm", "devices": 16, "pp": 4, "mode": "train"}
SERVED = {"model": "llama-3.1-70b", "mode": "serve", "device": "h100-sxm", "devices": 4}
NOT_OF = {"prompt": TRAINED, "pareto": TRAINED, "pipeline": SERVED}
APPLY = [(name, asked) for name in OF_ESTIMATES for asked in (TRAINED, SERVED) if NOT_OF.get(name) != asked]


@cache
def drawn(name, mode):
    return drawing_of(name, documents.estimated(TRAINED if mode == "train" else SERVED))


@pytest.mark.parametrize(("name", "asked"), APPLY, ids=lambda one: one if isinstance(one, str) else one["mode"])
def test_a_figure_is_drawn_the_same_each_time(name, asked):
    drawing = drawn(name, asked["mode"])
    svg = drawing.sheet().svg("one")
    assert svg == drawing.sheet().svg("one")
    root = ET.fromstring(svg)
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts
    assert not any("$" in (text or "") and "mathdefault" in text for text in texts)
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    assert all(one.startswith("one-") for one in ids)
    assert len(svg) < 200_000
    assert drawing.alt
    assert drawing.rows


def test_a_pareto_front_beside_training_is_of_the_replica_that_is_told():
    """Where no mode is given the devices are training's, and serving takes fewer: each mark is of those."""
    rows = drawing_of("pareto", documents.estimated({**SERVED, "mode": None})).rows
    assert [row["concurrency"] for row in rows if row["asked"]] == [16]
    paces = [row["tokens_per_s_per_device"] for row in rows]
    # Few requests wait for weights alone: twice as many are nearly twice as many tokens, from any mark to the next.
    assert all(1.7 < more / less < 2.0 for less, more in itertools.pairwise(paces))


@pytest.mark.parametrize("name", sorted(NOT_OF))
def test_a_figure_that_does_not_apply_is_refused(name):
    with pytest.raises(InputError, match=name):
        drawing_of(name, documents.estimated(NOT_OF[name]))


def test_every_figure_is_named_in_the_help():
    assert set(OF_ESTIMATES) | {"parity", "calibration", "compression"} == set(FIGURES)


def test_parts_add_up():
    rows = drawn("memory", "train").rows
    whole = next(row for row in rows if row["part"] == "in all")
    assert sum(row["value"] for row in rows if row["part"] not in ("in all", "device has")) == pytest.approx(
        whole["value"]
    )
    rows = drawn("footprint", "train").rows
    for name in {row["quantity"] for row in rows}:
        assert sum(row["share"] for row in rows if row["quantity"] == name) == pytest.approx(1.0)


@pytest.mark.parametrize("mode", ["train", "serve"])
def test_no_op_lies_above_the_roof(mode):
    rows = drawn("roofline", mode).rows
    assert len({row["op"] for row in rows}) >= 6
    for row in rows:
        roof = min(row["peak_flop_per_s"], row["flop_per_byte"] * row["memory_bytes_per_s"])
        assert 0.0 < row["flop_per_s"] <= roof * 1.001
    assert 0.5 < sum(row["share"] for row in rows) <= 1.0


@pytest.mark.parametrize(
    ("stages", "rounds", "chunks"), [(2, 2, 1), (4, 16, 1), (4, 3, 1), (4, 16, 2), (3, 9, 3), (8, 32, 1)]
)
def test_the_simulated_pipeline_takes_what_the_formula_says(stages, rounds, chunks):
    order = [pipelines.stage_order(stage, stages, rounds, chunks, "1f1b") for stage in range(stages)]
    rows = pipelines.simulate(order, stages, chunks, 1.0 / chunks, 2.0 / chunks)
    end = max(row["end_s"] for row in rows)
    assert end == pytest.approx(pipeline_time_s(rounds, 3.0, 3.0, stages, chunks))
    idle = 1.0 - sum(row["end_s"] - row["start_s"] for row in rows) / (end * stages)
    assert idle == pytest.approx(bubble_fraction(rounds, stages, chunks))
    assert len(rows) == 2 * stages * rounds * chunks
    for stage in range(1, stages + 1):
        own = sorted((row["start_s"], row["end_s"]) for row in rows if row["stage"] == stage)
        assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(own))


def test_gpipe_keeps_all_forwards_first():
    order = pipelines.stage_order(1, 4, 6, 1, "gpipe")
    assert [way for way, _, _ in order] == ["F"] * 6 + ["B"] * 6


def test_the_backward_pass_takes_about_twice_the_forward_pass():
    rows = drawn("pipeline", "train").rows
    ends = {
        way: next(row["end_s"] - row["start_s"] for row in rows if row["way"] == way) for way in ("forward", "backward")
    }
    assert 1.7 < ends["backward"] / ends["forward"] < 2.8


def test_more_requests_yield_more_and_wait_longer():
    rows = drawn("pareto", "serve").rows
    for name in ("tokens_per_s_per_device", "tpot_s"):
        values = [row[name] for row in rows]
        assert values == sorted(values)


def test_the_data_is_what_was_drawn(tmp_path, capsys):
    target, data = tmp_path / "m.svg", tmp_path / "m.csv"
    assert (
        main(["plot", "memory", "--params", "7e9", "--mode", "serve", "--output", str(target), "--data", str(data)])
        == 0
    )
    rows = list(csv.DictReader(data.read_text().splitlines()))
    assert rows[0]["part"] == "weights"
    assert float(rows[0]["value"]) > 1e10
    assert "Memory of a device" in capsys.readouterr().out
    picture = tmp_path / "m.png"
    assert main(["plot", "memory", "--params", "7e9", "--mode", "serve", "--output", str(picture), "--dpi", "60"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments", [["nothing"], [], ["memory", "--output", "x.gif", "--params", "7e9"], ["parity", "--params", "7e9"]]
)
def test_a_slip_is_one_line(arguments, capsys):
    assert main(["plot", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_words_are_never_read_as_tex():
    hostile = r"$\frac{1}{0}$ <script>alert(1)</script> & \x1b"
    with styled():
        sheet = Sheet(1.0)
        axes = sheet.axes(1, 1, 1)
        sheet.tip(axes.barh(0, 1)[0], hostile)
        axes.set_title(hostile)
    svg = sheet.svg("hostile")
    assert "<script" not in svg
    root = ET.fromstring(svg)
    assert hostile in [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert hostile in [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]


def rows(n, off=1.0):
    return [
        {
            "id": f"r{i}",
            "class": "ab"[i % 2],
            "measured": 2.0**i,
            "low": 0.8 * 2.0**i * off,
            "mid": 2.0**i * off,
            "high": 1.25 * 2.0**i * off,
        }
        for i in range(n)
    ]


def test_parity_counts_and_names():
    data = [*rows(19), {**rows(1)[0], "id": "stray", "mid": 40.0, "low": 30.0, "high": 50.0}]
    drawing = parity(data, "step_time_s")
    assert "95%" in drawing.alt
    assert "stray" in drawing.sheet().svg("p")


def test_coverage_is_counted():
    drawing = calibration({"time_s": [*rows(18), *rows(2, off=3.0)]})
    held = {row["stated"]: row["held"] for row in drawing.rows}
    assert held[0.9] == pytest.approx(0.9)
    assert calibration({"time_s": rows(3)}) is None


def test_ticks_of_time_are_round_in_their_own_unit():
    assert [tick(value, "s") for value in (1e-3, 1.0, 100.0, 1000.0)] == ["1 ms", "1 s", "100 s", "1000 s"]
