"""Training stacks fitted to a site's own runs: what they say is taken over as far as they agree, and can be asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from capacity.errors import FileFormatError, InputError
from capacity.estimators.answer import estimate
from capacity.estimators.stacks import FILE, load_stack
from capacity.laws.profile import FITTED
from capacity.toml_file import read_toml

pytest.importorskip("scipy")
from capacity.calibration.training import calibrate, fit, predicted_s
from capacity.calibration.training_parameters import fitted_values, priors, stacks_text
from capacity.calibration.training_runs import read_runs
from capacity.validation.training import step_of
from capacity.validation.training_rows import read_setup

SHAPES = [(2048, 16, 4), (4096, 24, 2), (4096, 32, 8), (5120, 40, 4)]


def rows(slower):
    """Runs of one site, all `slower` than the project's stacks say."""
    found = []
    for number, (hidden, layers, micro) in enumerate(SHAPES * 3):
        row = {
            "id": f"own-{number}", "source": "our site, 2026", "family": "fsdp", "model": "own", "n_layers": layers, "hidden": hidden,
            "ffn_hidden": 4 * hidden, "n_heads": hidden // 128, "vocab": 50257, "seq_len": 2048, "device": "A100-SXM-80GB",
            "n_devices": 8 * (1 + number // 4), "dtype": "bf16", "global_batch_seqs": 64 * (1 + number // 4) * micro, "micro_batch": micro,
            "tp": 1, "pp": 1, "zero_stage": 3, "recompute": "full", "attention": "flash", "tier": "A",
        }  # fmt: skip
        found.append(row | {"step_time_s": sum(step_of(read_setup({**row, "step_time_s": 1.0})).values()) * slower})
    return pd.DataFrame(found)


def test_a_site_that_is_slower_is_believed_in_part(tmp_path):
    rows(1.2).to_csv(tmp_path / "training_own.csv", index=False)
    done = calibrate(str(tmp_path), str(tmp_path / "out"), talk=lambda _: None)
    score = done["scores"]["own"]
    assert score["left_out"]["bias"] == pytest.approx(-100.0 / 6.0, abs=0.2)  # what the project's own stacks say of it
    assert abs(score["in_sample"]["bias"]) < 3.0
    path = f"{done['files'][0]}:fsdp"
    steps = [
        estimate(params=7e9, mode="train", device="a100-sxm-80gb", devices=64, dp=64, zero=3, recompute="full", stack=name)
        .sections["train"].quantities["step_time"]
        for name in ("fsdp", path)
    ]  # fmt: skip
    assert 1.1 < steps[1].mid / steps[0].mid < 1.25
    # Twelve runs say nothing of intervals.
    assert steps[1].low / steps[1].mid == pytest.approx(steps[0].low / steps[0].mid, rel=2e-3)


def test_a_file_of_stacks_is_read_back():
    """What the fit writes is what it starts from; the project's file among others."""
    tables = read_toml(os.path.join(FITTED, FILE), keep=False)
    known = fitted_values(tables)
    assert known.keys() == priors().keys()
    values = {key: mid for key, (mid, _) in known.items()}
    text = stacks_text(
        values, tables["interval"], {}, tables["stack"], tables["generation"], {"source": "s", "date": "d"}
    )
    own = [line for line in text.splitlines() if "=" in line and "source" not in line and "date" not in line]
    theirs = set(Path(FITTED, FILE).read_text(encoding="utf-8").splitlines())
    assert not [line for line in own if line not in theirs]


def test_runs_that_agree_move_nothing(tmp_path):
    rows(1.0).to_csv(tmp_path / "training.csv", index=False)
    runs = read_runs([str(tmp_path / "training.csv")])
    known = fitted_values(read_toml(os.path.join(FITTED, FILE), keep=False))
    values = fit(runs, known)
    assert all(values[key] == pytest.approx(mid, rel=0.01) for key, (mid, _) in known.items())
    assert predicted_s(values, runs) == pytest.approx(runs.measured, rel=0.01)


def test_whole_runs_are_not_fitted_on(tmp_path):
    table = rows(1.5).drop(columns="step_time_s").assign(tokens_total=1e12, device_hours=1e5)
    table.to_csv(tmp_path / "training.csv", index=False)
    with pytest.raises(InputError, match="no run of it can be fitted on"):
        calibrate(str(tmp_path / "training.csv"), str(tmp_path), talk=lambda _: None)


def test_a_folder_without_runs_is_told(tmp_path):
    with pytest.raises(InputError, match="has no table of training runs"):
        calibrate(str(tmp_path), str(tmp_path))


def test_a_file_that_holds_no_stacks_is_told(tmp_path):
    (tmp_path / "a.toml").write_text("[interval]\n")
    with pytest.raises(FileFormatError, match="holds no training stacks"):
        load_stack(f"{tmp_path}/a.toml:fsdp")
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_stack(f"{tmp_path}/b.toml")
