"""Documents of every kind are told: plans, sweeps, stores of bench, predictions, compression, notes."""

from __future__ import annotations

import io
import json
import runpy
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("typst")
pytest.importorskip("pandas")

import capacity
from capacity.cli import main
from capacity.errors import FileFormatError, InputError
from capacity.reporting import documents, provenance
from capacity.reporting.content import figures, tables
from capacity.reporting.figures import stores, sweeps
from capacity.reporting.page import MOST_BYTES, html
from capacity.reporting.paper import pdf
from capacity.reporting.report import compose


def printed(capsys, *arguments):
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return capsys.readouterr().out


def told(*inputs):
    report = compose(list(inputs))
    return report, html(report)


def test_a_plan_says_what_it_was_chosen_from(capsys, monkeypatch, tmp_path):
    text = printed(capsys, "plan", "--params", "1e9", "--tokens", "1e10", "--device", "h100-sxm", "--devices", "8")
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    page = tmp_path / "plan.html"
    assert main(["report", "-", "--output", str(page)]) == 0
    said = page.read_text(encoding="utf-8")
    best = json.loads(text)["best"]["setting"].rpartition("; ")[2]
    assert best in said
    assert "What it was chosen from" in said
    assert "Roofline" in said, "the estimate of the plan can be asked again, so it is derived"
    assert main(["report", "--rerun", str(page), "--output", str(tmp_path / "again.html")]) == 0
    assert "nothing changed" in capsys.readouterr().out


def test_a_question_asked_backwards_is_told(capsys):
    text = printed(
        capsys,
        "plan",
        "--params",
        "1e9",
        "--tokens",
        "1e10",
        "--device",
        "h100-sxm",
        "--solve",
        "devices",
        "--deadline",
        "2d",
    )
    data = json.loads(text)
    _, page = told(documents.document({**data, "estimate": None}, "solution.json"))
    assert "Solved for devices" in page
    assert all(one["why"] in page for one in data["trials"])


def test_a_sweep_shows_its_front(capsys):
    text = printed(
        capsys,
        "sweep",
        "--params",
        "7e9",
        "--mode",
        "train",
        "--devices",
        "64",
        "--sweep",
        "tp=1:8:x2",
        "--sweep",
        "zero=1,3",
        "--quiet",
    )
    document = documents.document(json.loads(text), "sweep.json")
    assert document.kind == "sweep"
    report, page = told(document)
    assert "Sweep over tp, zero" in page
    assert {figure.name for figure in figures(report)} & {"d0-trade", "d0-curves"}
    assert tables(report)[0].rows


def test_no_case_of_a_front_is_beaten():
    rows = [
        {"tp": n, "train.run_time": run, "train.memory_per_device": memory}
        for n, (run, memory) in enumerate([(1.0, 9.0), (2.0, 5.0), (3.0, 6.0), (4.0, 1.0)])
    ]
    drawing = sweeps.trade(rows, "train", ["tp"], [])
    assert [row["unbeaten"] for row in drawing.rows] == [True, True, False, True]


def test_compression_is_told_and_made_again(tmp_path, capsys):
    page = tmp_path / "c.html"
    source = tmp_path / "c.json"
    source.write_text(printed(capsys, "compress", "--model", "llama-3.1-8b", "--device", "rtx-4060"), encoding="utf-8")
    assert main(["report", str(source), "--output", str(page)]) == 0
    assert "llama.cpp Q4_K_M" in page.read_text(encoding="utf-8")


def store(path, factor=1.0, cpu="a CPU"):
    """A store as `capacity bench` writes it: two sizes of product, two streams, each timed ten times."""
    from capacity.measurement.store import Store
    from capacity.spec.measurement import Measurement, Sample

    cases = [("gemm/small", "gemm", {"dtype": "fp32"}, 1e-3, 2e9, 1e7), ("gemm/large", "gemm", {"dtype": "fp32"}, 8e-3, 1.6e10, 4e7),
             ("memory/copy", "memory", {"dtype": "fp32"}, 4e-3, 1e6, 1e8), ("memory/triad", "memory", {"dtype": "fp32"}, 6e-3, 2e6, 1.5e8)]  # fmt: skip
    with Store(str(path)) as kept:
        kept.add_environment(
            "e", {"cpu": cpu, "cores": 2, "caches_bytes": {"L2": 2**20, "L3": 2**24}, "seen": "2026-01-01T00:00:00"}
        )
        for name, kernel, parameters, seconds, flop, moved in cases:
            own = factor if kernel == "gemm" else 1.0
            kept.add(
                Measurement(
                    case=name, kernel=kernel, parameters=parameters, device="cpu", round=0, status="ok", environment="e", started="2026-01-01T00:00:00",
                    flop=flop, moved_bytes=moved, samples=tuple(Sample(wall_s=seconds * own * (1.0 + 0.001 * i), loops=1, waited_s=0.0) for i in range(10)),
                    settings={"threads": 1},
                )
            )  # fmt: skip
    return path


def test_two_days_of_a_machine_are_compared(tmp_path):
    pytest.importorskip("torch")
    monday, friday = (
        documents.read(str(store(tmp_path / f"{day}.jsonl", factor)))
        for day, factor in (("monday", 1.0), ("friday", 1.5))
    )
    rows = {row["case"]: row for row in stores.ratios(monday.data, friday.data)}
    assert rows["gemm/large"]["ratio"] == pytest.approx(1.5, rel=1e-5)
    assert rows["gemm/large"]["apart"]
    assert not rows["memory/copy"]["apart"]
    report, page = told(monday, friday)
    assert report.title == "monday against friday"
    assert "in 2 of them the intervals of the medians part" in page
    assert monday.data["reached"]["products in fp32, FLOP/s"] == pytest.approx(2e12, rel=0.01)
    assert pdf(report).startswith(b"%PDF")


def test_predictions_are_scored_again(tmp_path, capsys):
    rows = tmp_path / "training.csv"
    assert main(["validate", "training", "--predictions", str(rows)]) == 0
    capsys.readouterr()
    document, known = documents.read(str(rows)), documents.validated("training")
    assert document.data["overall"]["mdape"] == pytest.approx(known.data["overall"]["mdape"])
    report, page = told(known)
    assert {figure.name for figure in figures(report)} == {"d0-parity-training", "d0-calibration"}
    assert len(page.encode()) < MOST_BYTES
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    with pytest.raises(FileFormatError, match="lacks the column"):
        documents.read(str(bad))


def test_notes_keep_their_headings(tmp_path):
    path = tmp_path / "notes.md"
    path.write_text("## How it went\n\nTwo rounds,\nas planned.\n\n- one <b>thing</b>\n- another\n")
    _, page = told(documents.read(str(path)))
    assert "<h2>How it went</h2>" in page
    assert "<p>Two rounds, as planned.</p>" in page
    assert "one &lt;b&gt;thing&lt;/b&gt;" in page


def test_python_makes_reports():
    answer = capacity.estimate(params=1e9, mode="serve", device="l4")
    page = capacity.report(answer, title="Mine")
    assert "<title>Mine</title>" in page
    assert capacity.report(answer, format="pdf").startswith(b"%PDF")
    with pytest.raises(InputError):
        capacity.report("nothing")


def test_the_index_of_published_reports_is_made():
    made = runpy.run_path("reports/make.py")
    assert made["index"]() == Path("reports/README.md").read_text(encoding="utf-8"), "run: python reports/make.py"
    for name, *_ in made["REPORTS"]:
        page, paper = (made["place"](name, form) for form in made["FORMATS"])
        kept, same = provenance.read(str(page)), provenance.read(str(paper))
        assert kept["inputs"] == same["inputs"]
        assert kept["results"]
        assert page.stat().st_size < MOST_BYTES
