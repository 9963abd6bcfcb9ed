"""Engines fitted to a site's own runs: `capacity calibrate serving`."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from capacity.cli import main
from capacity.errors import FileFormatError, InputError, UnknownNameError
from capacity.estimators.answer import estimate
from capacity.laws.engine import load_engine
from capacity.validation.tables import read_runs


def test_a_site_that_is_slower_has_slower_engines_afterwards(tmp_path, capsys):
    table = read_runs(None, "serving", ("model",))
    table = table[(table["engine"] == "vllm") & (table["mode"] == "agg")]
    table = table[table["model"] == table["model"].value_counts().index[0]].head(24)
    table["measured_tpot_ms"] = table["measured_tpot_ms"].astype(float) * 1.4
    table.to_csv(tmp_path / "runs.csv", index=False)
    assert main(["calibrate", "serving", str(tmp_path / "runs.csv"), "--output", str(tmp_path / "own"), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["scores"]["in_sample"]["tpot_ms"] < done["scores"]["before"]["tpot_ms"] - 0.02
    assert done["scores"]["left_out"] is None  # one model says nothing of others
    paces = [
        estimate(model="llama-3.1-8b", mode="serve", engine=engine).sections["serve"].quantities["tpot"].mid
        for engine in ("vllm", f"{tmp_path / 'own' / 'served.toml'}:vllm")
    ]
    # Runs of one deployment resemble each other: two dozen move parameters a part of the way.
    assert 1.03 < paces[1] / paces[0] < 1.6


def test_a_file_that_is_none_is_refused_in_a_line(tmp_path):
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_engine(f"{tmp_path / 'none.toml'}:vllm")
    (tmp_path / "empty.toml").write_text("[engines.vllm]\nstep_ms = 1.0\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match="holds nothing of vllm"):
        load_engine(f"{tmp_path / 'empty.toml'}:vllm")
    with pytest.raises(UnknownNameError):
        load_engine(f"{tmp_path / 'empty.toml'}:no-such-engine")


def test_a_table_without_a_run_that_can_be_priced_is_refused(tmp_path):
    from capacity.calibration.serving import calibrate

    row = {
        "model": "no-such-model",
        "device": "h100_sxm",
        "engine": "vllm",
        "mode": "agg",
        "measured_tpot_ms": 1,
        "measured_ttft_ms": 1,
    }
    pd.DataFrame([row | {"input_len": 1, "output_len": 1}]).to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(InputError, match="no run of the table"):
        calibrate(str(tmp_path / "runs.csv"), str(tmp_path), talk=lambda _: None)
