"""What the kernel laws say of published kernels that no fit has seen, and the page that says so."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from capacity.validation import validate

DOCS = Path(__file__).parents[2] / "docs"
# Median error that no change may exceed; what is reached is in docs/accuracy-kernels.md.
MOST = {"gemm": 0.07, "prefill": 0.08, "decode": 0.095, "expert": 0.115, "collective": 0.05}


@pytest.fixture(scope="module")
def scores():
    return validate("kernels")


@pytest.mark.parametrize("op", MOST)
def test_unseen_kernels_are_predicted_within(scores, op):
    score = next(group for group in scores["groups"] if group["by"] == {"op": op})
    assert score["n"] == score["priced"] > 100
    assert score["mdape"] < MOST[op]
    assert abs(score["bias"]) < 0.04
    assert 0.84 <= score["coverage_90"] <= 0.97
    assert score["mdape"] < 0.2 * score["baseline_mdape"]
    assert score["mdape"] < 0.35 * score["baseline_single_mdape"]


def test_the_command_says_the_same_as_json(scores):
    command = [sys.executable, "-m", "capacity", "validate", "kernels", "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told["schema"] == 1
    assert told["kind"] == "kernels"
    assert told["overall"] == pytest.approx(scores["overall"])
    assert [group["by"] for group in told["groups"]] == [group["by"] for group in scores["groups"]]


def test_the_page_is_up_to_date(scores):
    page = runpy.run_path(str(DOCS / "generate_accuracy_kernels.py"))["page"](scores)
    told = (DOCS / "accuracy-kernels.md").read_text(encoding="utf-8")
    assert page == told, "run: python docs/generate_accuracy_kernels.py > docs/accuracy-kernels.md"
