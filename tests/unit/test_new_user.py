"""What a new user would stumble over: files of the wrong kind, names of columns, sentences that contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capacity.errors import CapacityError
from capacity.estimators.deployment import deploy
from capacity.planning import solve

if TYPE_CHECKING:
    from pathlib import Path


def test_an_empty_table_is_no_document(tmp_path: Path) -> None:
    from capacity.reporting import documents

    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(CapacityError, match=r"empty\.csv: cannot be read as a table"):
        documents.read(str(empty))


@pytest.mark.parametrize(
    "text",
    ['{"kind": "sweep", "rows": [1, 2]}', '{"kind": "validation", "rows": 5}', '{"kind": "plan", "turns": [{"a": 1}]}'],
)
def test_a_document_of_another_shape_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    from capacity.reporting import documents
    from capacity.reporting.report import compose

    path = tmp_path / "made-up.json"
    path.write_text(text)
    with pytest.raises(CapacityError, match="that can be read"):
        compose([documents.read(str(path))])


def test_predictions_are_numbers(tmp_path: Path) -> None:
    from capacity.reporting import documents

    path = tmp_path / "words.csv"
    path.write_text("id,measured,low,mid,high\na,x,1,2,3\n")
    with pytest.raises(CapacityError, match="measured holds what is no number"):
        documents.read(str(path))


def test_a_sweep_writes_no_folder_named_like_a_workbook(tmp_path: Path) -> None:
    from capacity.sweeps.run import sweep

    with pytest.raises(CapacityError, match=r"end it in \.parquet or \.csv"):
        sweep({"tp": [1]}, {"params": 1e9, "mode": "train"}, output=str(tmp_path / "answers.xlsx"))
    assert not list(tmp_path.iterdir())


def test_the_largest_model_for_a_budget_may_rent_more_devices_for_less_time() -> None:
    # 47 devices would spend the budget by the deadline; 32 of them leave a third of it.
    answer = solve("params", budget=1e5, deadline=30 * 86400.0)
    assert answer.value is not None
    alone = solve("params", budget=1e5, deadline=30 * 86400.0, devices=64)
    assert alone.value is not None
    assert answer.value >= alone.value


def test_an_answer_tells_the_run_that_is_shown_below_it() -> None:
    answer = solve("devices", params=7e9)
    assert answer.estimate is not None
    told = answer.estimate.sections["train"].verdict.split("; ")[1]
    assert told in answer.verdict


def test_the_nearest_place_lacks_least() -> None:
    _, _, found, _ = deploy(params=1e12, target="edge")
    lacking = [one.short for one in found]
    assert lacking[0] == min(lacking)
    assert lacking[0] > 0.0


def test_a_quantity_that_no_row_has_is_told() -> None:
    from capacity.rendering.style import Style
    from capacity.rendering.swept import screen
    from capacity.sweeps.run import sweep

    found = sweep(
        {"tp": [1, 2]}, {"params": 1e9, "mode": "train", "devices": 8}, columns=["time.expert routing", "mfu"]
    )
    assert found.lacking == ("time.expert routing",)
    assert "no row has time.expert routing;" in screen(found, Style(width=120))


def test_a_slip_in_a_width_does_not_hang_a_validation() -> None:
    from capacity.validation import serving

    rows = serving.read_runs(None, "serving", serving.COLUMNS)
    row = rows[rows["model"].str.contains("DeepSeek") & (rows["mode"] == "agg")].head(1).assign(moe_ep_size=1e18)
    assert serving.predict(row)["why"].eq("").all()
