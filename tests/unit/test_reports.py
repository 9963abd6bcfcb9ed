"""Reports: what they say, that hostile words stay words, that the same inputs give the same bytes."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("typst")

from formulary import formulas

from capacity.cli import main
from capacity.derivation import expression
from capacity.errors import FileFormatError
from capacity.formula import ledger
from capacity.reporting import documents, mathematics, provenance
from capacity.reporting.page import MOST_BYTES, html
from capacity.reporting.paper import pdf
from capacity.reporting.report import compose
from capacity.reporting.tables import guarded, to_csv

HOSTILE = "=cmd|' /C calc'!A0 </script><script>alert(1)</script> #eval(\"panic\") $\\frac$ \x1b[31mred\x1b[0m \u202eetteL {{7*7}}"


@pytest.fixture(scope="module")
def estimate():
    return documents.estimated(
        {"params": 7e9, "tokens": 1e11, "device": "h100-sxm", "devices": 16, "pp": 4, "mode": "train"}
    )


@pytest.fixture(scope="module")
def page(estimate):
    return html(compose([estimate]))


@pytest.fixture(scope="module")
def hostile(estimate):
    data = json.loads(json.dumps(estimate.data))
    data["model"]["name"] = HOSTILE
    data["request"]["engine"] = HOSTILE
    data["sections"]["train"]["verdict"] = HOSTILE
    data["sections"]["train"]["breakdowns"]["memory"][HOSTILE] = 1e10
    data["sections"]["train"]["alternatives"][0]["device"] = HOSTILE
    data["assumptions"][0]["source"] = HOSTILE
    return compose([documents.document(data, "hostile.json")])


def test_a_page_says_the_verdict_the_numbers_and_where_they_are_from(page, estimate):
    train = estimate.data["sections"]["train"]
    assert train["verdict"].split(";")[0].removeprefix("fits") in page
    assert "<math" in page
    assert page.count("<figure") >= 3
    assert "What the answer rests on" in page
    for head in ("<main", "<nav", "<header", "<footer", "<caption>", 'lang="en"', "<title>"):
        assert head in page
    assert len(page.encode()) < MOST_BYTES


def test_nothing_is_fetched(page):
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", page)
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_same_inputs_give_the_same_bytes(page, estimate):
    again = compose([documents.estimated(estimate.request)])
    assert html(again) == page
    assert pdf(again) == pdf(again)


def test_hostile_words_stay_words_in_a_page(hostile):
    page = html(hostile)
    assert "<script>alert" not in page
    assert page.count("<script") == html(compose([])).count("<script") + page.count('class="explorer"')
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", page)[0]
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;/script&gt;" in page


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext (poppler-utils) is not installed")
def test_hostile_words_stay_words_in_a_document(hostile, tmp_path):
    path = tmp_path / "hostile.pdf"
    path.write_bytes(pdf(hostile))
    text = subprocess.run(["pdftotext", "-raw", path, "-"], capture_output=True, text=True, check=True).stdout
    flat = re.sub(r"\s+", "", text)
    assert '#eval("panic")' in flat or "#eval(“panic”)" in flat
    assert "{{7*7}}" in flat
    assert "</script><script>" in flat


def test_hostile_words_are_no_formulas_of_a_spreadsheet(hostile):
    rows = [
        {"name": HOSTILE, "n": -1.5},
        {"name": "@SUM(A1)", "n": None},
        {"name": "  =1+1", "n": 2},
        {"name": "plain", "n": 3},
    ]
    read = list(csv.reader(io.StringIO(to_csv(rows))))
    assert [row[0][0] for row in read[1:]] == ["'", "'", "'", "p"]
    assert read[1][1] == "-1.5"
    assert "\x1b" not in to_csv(rows)
    assert guarded("-5 apples").startswith("'")


def test_hostile_words_do_not_steer_the_terminal(tmp_path, capsys, estimate):
    data = {**estimate.data, "model": {**estimate.data["model"], "name": HOSTILE}}
    source = tmp_path / "x.json"
    source.write_text(json.dumps(data))
    target = tmp_path / "a\x1b[31m.html"
    assert main(["report", str(source), "--output", str(target), "--title", HOSTILE]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_report_is_made_again_and_says_what_changed(tmp_path, capsys):
    notes = tmp_path / "notes.md"
    notes.write_text("Nothing but words.")
    for form, asked in (("html", ["--params", "1e9", "--mode", "serve", "--device", "l4"]), ("pdf", [str(notes)])):
        first, second = tmp_path / f"a.{form}", tmp_path / f"b.{form}"
        assert main(["report", *asked, "--output", str(first)]) == 0
        capsys.readouterr()
        assert main(["report", "--rerun", str(first), "--output", str(second)]) == 0
        assert "nothing changed" in capsys.readouterr().out
        assert first.read_bytes() == second.read_bytes()
    before = provenance.read(str(tmp_path / "a.html"))
    after = json.loads(json.dumps(before))
    after["versions"]["capacity"] = "99"
    name = next(name for name in after["results"] if name.endswith("tpot"))
    after["results"][name] *= 1.5
    told = provenance.changes(before, after)
    assert told[0].startswith("capacity:")
    assert told[1].startswith(name)
    assert "+50.00%" in told[1]


def test_a_configuration_that_is_gone_is_remembered(tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    config = folder / "config.json"
    shutil.copy("docs/examples/config.json", config)
    page = tmp_path / "a.html"
    assert main(["report", "--config", str(config), "--mode", "serve", "--output", str(page)]) == 0
    config.unlink()
    assert main(["report", "--rerun", str(page), "--output", str(tmp_path / "b.html")]) == 0
    assert "nothing changed" in capsys.readouterr().out


@pytest.mark.parametrize("formula", formulas().values(), ids=formulas().keys())
def test_every_formula_is_set(formula):
    pytest.importorskip("sympy")
    right, where = mathematics.body(formula)
    assert list(_nodes([mathematics.symbol(formula.symbol)]))
    told = {node["t"] for node in _nodes([right, *where]) if node["k"] == "id"}
    written = expression(formula)
    for parameter in formula.parameters:
        if re.search(rf"\b{parameter}\b", written):
            assert mathematics.spoken(parameter) in told


def _nodes(trees):
    for node in trees:
        yield node
        yield from _nodes(node.get("of", ()))


def test_a_file_that_is_no_document_is_one_line(tmp_path, capsys):
    for name, content in (
        ("a.json", "{"),
        ("b.json", "[1]"),
        ("c.json", '{"kind": "estimate"}'),
        ("d.json", '{"a": 1}'),
        ("e.json", '{"schema": 1, "kind": "odd"}'),
    ):
        path = tmp_path / name
        path.write_text(content)
        assert main(["report", str(path), "--output", str(tmp_path / "x.html")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "x.html").exists()
    with pytest.raises(FileFormatError):
        provenance.read(str(tmp_path / "a.json"))


@pytest.mark.parametrize("name", ["matplotlib", "jinja2", "sympy"])
def test_a_library_that_is_missing_is_named(name, monkeypatch, tmp_path, capsys):
    for loaded in [one for one in sys.modules if one.startswith(("capacity.reporting", f"{name}."))]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["report", "--params", "1e9", "--mode", "serve", "--output", str(tmp_path / "x.html")]) == 2
    assert "model-capacity[report]" in capsys.readouterr().err


def test_derivations_end_in_inputs_with_a_source(estimate):
    from capacity.estimators.answer import values
    from capacity.reporting.derivations import derive

    with ledger():
        found = values(**estimate.request)
    told = derive("Step time", "train.step_time", found["train.step_time"])
    assert told.steps[0].value.endswith("s")
    assert any(source for step in told.steps for _, _, source in step.inputs)


def test_any_document_is_told(tmp_path):
    data = {
        "kind": "novelty",
        "verdict": "it works",
        "score": 3.5,
        "rows": [{"name": "a", "time_s": 1.0}, {"name": "b", "time_s": 2e-3}],
    }
    page = html(compose([documents.document(data, "novelty.json")]))
    assert "it works" in page
    assert "2.00 ms" in page
