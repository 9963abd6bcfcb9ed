"""Published training runs held against predictions: rows are read generously, scored in seconds, and not fitted on."""

from __future__ import annotations

import time

import pandas as pd
import pytest

from capacity.cli import main
from capacity.errors import CapacityError, FileFormatError, InputError
from capacity.estimators.lowering import Tokens, lower, parameter_count
from capacity.validation import site_of, validate
from capacity.validation.memory import measured_bytes, seen_of
from capacity.validation.row_models import model_of
from capacity.validation.row_words import rig_of, stack_of
from capacity.validation.training import predict, step_of
from capacity.validation.training_rows import read_setup

ROW = {
    "id": "site-001", "source": "PyTorch FSDP benchmark 2023", "family": "fsdp", "model": "Llama 2 7B", "hidden": 4096.0,
    "n_layers": 32.0, "seq_len": 4096.0, "device": "A100-SXM-80GB", "n_devices": 64.0, "dtype": "bf16", "zero_stage": 3.0,
    "global_batch_seqs": 128.0, "micro_batch": 2.0, "tp": 1.0, "pp": 1.0, "dp": 64.0, "recompute": "full", "step_time_s": 4.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def training():
    begin = time.perf_counter()
    scores = validate("training")
    return scores, time.perf_counter() - begin


class TestOwnTable:
    def test_every_row_is_priced_or_says_why_and_it_takes_seconds(self, training):
        scores, seconds = training
        assert scores["overall"]["n"] >= 150
        assert scores["overall"]["priced"] + sum(scores["unpriced"].values()) == scores["overall"]["n"]
        assert scores["overall"]["priced"] >= 0.98 * scores["overall"]["n"]
        assert seconds < 30.0

    def test_full_configurations_are_near_and_beat_the_rule_of_thumb(self, training):
        scores, _ = training
        (tier,) = [group for group in scores["groups"] if group["by"] == {"tier": "A"}]
        assert tier["mdape"] < 0.09
        assert tier["within_20"] > 0.8
        assert tier["mdape"] < 0.5 * tier["baseline_mdape"]
        assert 0.86 <= tier["coverage_90"] <= 0.97

    def test_sources_are_told(self):
        from capacity.validation.tables import read_runs

        for kind in ("training", "memory"):
            table = read_runs(None, kind, ("id", "source", "model", "device"))
            assert table["source"].str.len().min() > 10
            assert table["id"].is_unique

    def test_no_row_of_it_is_fitted_on(self):
        from capacity.calibration.training_runs import read_runs
        from capacity.validation.tables import CURATED

        runs = read_runs([f"{CURATED}/training.csv"])
        assert len(runs.measured) > 150
        assert not runs.weight.any()

    def test_memory_beats_the_rule_of_thumb(self):
        scores = validate("memory")
        (tier,) = [group for group in scores["groups"] if group["by"] == {"tier": "A"}]
        assert tier["mdape"] < 0.12 < tier["baseline_mdape"]


class TestRows:
    def test_columns_of_runs_are_one_run_each(self):
        """What the fit assembles in columns is what one estimate assembles."""
        from capacity.calibration.training_parameters import priors
        from capacity.calibration.training_runs import read_runs
        from capacity.validation.tables import CURATED

        runs = read_runs([f"{CURATED}/training.csv"])
        values = {key: middle for key, (middle, _) in priors().items()}
        from capacity.calibration.training import predicted_s

        together = predicted_s(values, runs)
        for index in (0, 50, 150):
            alone = runs.only(pd.Series(range(len(together))).to_numpy() == index)
            assert predicted_s(values, alone)[0] == pytest.approx(together[index], rel=1e-12)

    def test_what_is_given_is_used_and_the_rest_inferred_and_said(self):
        whole = read_setup(ROW)
        assert whole.plan.dp == 64.0
        assert whole.plan.recompute == "full"
        assert whole.measured_s == 4.0
        bare = read_setup({"id": "x", "model": "Llama 2 7B", "device": "A100", "tokens_per_s_per_device": 3000.0})
        assert {"8 devices", "flash attention"} <= set(bare.inferred)
        assert bare.given == "tokens_per_s_per_device"

    @pytest.mark.parametrize("column", ["step_time_s", "tokens_per_s_per_device", "model_tflops_per_device", "mfu_pct"])
    def test_the_same_run_is_read_from_any_column(self, column):
        work = 3.0 * 128 * (2.0 * (6_738_415_616 - 32000 * 4096) * 4096 + 4.0 * 32 * 4096**2 * 4096)
        value = {
            "step_time_s": 4.0,
            "tokens_per_s_per_device": 128 * 4096 / 64 / 4.0,
            "model_tflops_per_device": work / 4.0 / 64 / 1e12,
            "mfu_pct": work / 4.0 / 64 / 312e12 * 100.0,
        }[column]
        row = {key: cell for key, cell in ROW.items() if key != "step_time_s"} | {column: value}
        assert read_setup(row).measured_s == pytest.approx(4.0, rel=2e-3)

    def test_hardware_utilisation_counts_what_was_rebuilt(self):
        row = {key: cell for key, cell in ROW.items() if key != "step_time_s"}
        once = read_setup(row | {"mfu_pct": 40.0}).measured_s
        again = read_setup(row | {"hfu_pct": 40.0}).measured_s
        assert 1.3 < again / once < 4.0 / 3.0

    @pytest.mark.parametrize(
        ("name", "device"),
        [
            ("H100-96GB-HBM2e-500W", "h100-sxm"),
            ("TPU-v7x (Ironwood)", "tpu-v7"),
            ("A100 (variant not stated)", "a100-sxm-80gb"),
        ],
    )
    def test_devices_are_found_under_their_usual_names(self, name, device):
        assert rig_of(name)[0].device.id == device

    def test_a_power_limit_slows_a_device(self):
        limited, free = (read_setup(ROW | {"device": name}) for name in ("H100-500W", "H100-SXM-80GB"))
        assert sum(step_of(limited).values()) > 1.05 * sum(step_of(free).values())

    @pytest.mark.parametrize(
        ("name", "layers", "params"),
        [
            ("LLAMA3.1_405B", None, 405.8e9),
            ("deepseekv2 cut to 4 layers", 4.0, 13.3e9),
            ("Qwen3_235B_a22B", None, 235.1e9),
        ],
    )
    def test_models_are_found_and_cut(self, name, layers, params):
        model, _ = model_of({"model": name, "n_layers": layers})
        assert parameter_count(lower(model, Tokens())) == pytest.approx(params, rel=0.01)

    def test_unknown_models_are_built_from_their_widths(self):
        row = {"model": "Someone's 3B", "n_layers": 26.0, "hidden": 3200.0, "n_heads": 32.0, "ffn_hidden": 8640.0}
        model, inferred = model_of(row | {"vocab": 32000.0, "params_total": 3.43e9})
        assert parameter_count(lower(model, Tokens())) == pytest.approx(3.43e9, rel=0.01)
        assert inferred == ()

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            ({"id": "a", "model": "Llama 2 7B", "device": "Gaudi99"}, "unknown device"),
            ({"id": "a", "model": "Llama 2 7B"}, "names no device"),
            ({"id": "a", "model": "mystery", "device": "H100"}, "nothing says what model"),
            (ROW | {"tp": 8.0, "pp": 32.0}, "more than the row's 64 devices"),
        ],
    )
    def test_what_cannot_be_priced_says_why(self, row, words):
        with pytest.raises(CapacityError, match=words):
            read_setup(row)
        assert words in predict(pd.DataFrame([row])).iloc[0]["why"]

    @pytest.mark.parametrize(
        ("family", "stack"),
        [
            ("mbridge-gb200 (26.08)", "megatron-core-26.06"),
            ("maxtext-tpu", "jax"),
            ("torchtitan", "torchtitan"),
            ("", "fsdp"),
        ],
    )
    def test_stacks_are_told_by_their_names(self, family, stack):
        assert stack_of({"family": family}) == stack

    def test_kernels_written_for_one_architecture_are_not_counted_on_another(self):
        row = {"family": "mbridge", "source": "performance-summary.md (26.06)"}
        assert stack_of(row | {"device": "GB300"}) == "megatron-core-26.06"
        assert stack_of(row | {"device": "H100-SXM"}) == "megatron-core"

    def test_units_of_memory(self):
        assert measured_bytes({"peak_mem_gib": 2.0}) == 2**31
        assert measured_bytes({"peak_mem_printed": "21.4", "unit_printed": "GB (code: bytes/1e9)"}) == pytest.approx(
            21.4e9
        )
        assert measured_bytes({"peak_mem_printed": "80", "unit_printed": "G (SUM over 4 GPUs)"}) == 20 * 2**30
        assert seen_of({"mem_kind": "nvidia-smi (includes CUDA context + NCCL)"}) == "driver"
        assert seen_of({"mem_kind": "max_allocated, logging rank"}) == "allocated"


class TestAnchors:
    def test_a_site_that_is_slower_says_so_in_part(self, tmp_path):
        predicted = sum(step_of(read_setup(ROW)).values())
        path = tmp_path / "mine.csv"
        pd.DataFrame([ROW | {"step_time_s": 1.2 * predicted}] * 3).to_csv(path, index=False)
        factor, runs = site_of(str(path))
        assert runs == 3.0
        assert 1.12 < factor < 1.2

    def test_none_or_four_are_refused(self, tmp_path):
        path = tmp_path / "mine.csv"
        pd.DataFrame([ROW] * 4).to_csv(path, index=False)
        with pytest.raises(InputError, match="1 to 3"):
            site_of(str(path))

    def test_the_command_takes_them(self, tmp_path, capsys):
        path = tmp_path / "mine.csv"
        pd.DataFrame([ROW]).to_csv(path, index=False)
        asked = [
            "estimate",
            "--model",
            "llama-2-7b",
            "--mode",
            "train",
            "--device",
            "a100",
            "--stack",
            "fsdp",
            "--plain",
        ]
        assert main([*asked, "--anchor", str(path)]) == 0
        assert "train.step_time" in capsys.readouterr().out
        assert main([*asked, "--anchor", str(tmp_path / "none.csv")]) == 2


class TestCommand:
    @pytest.mark.parametrize("kind", ["training", "memory"])
    def test_it_fits_eighty_columns(self, kind, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        assert main(["validate", kind]) == 0
        out = capsys.readouterr().out
        assert all(len(line) <= 80 for line in out.splitlines())
        assert "furthest off" in out

    def test_a_table_without_its_columns_is_refused(self, tmp_path):
        path = tmp_path / "bad.csv"
        path.write_text("a,b\n1,2\n")
        with pytest.raises(FileFormatError, match="lacks the columns"):
            validate("training", str(path))

    def test_blank_tables_and_cells_are_scored_as_nothing(self, tmp_path):
        path = tmp_path / "blank.csv"
        pd.DataFrame([{"id": "a-1", "model": None, "device": None}, {"id": "", "model": "x", "device": "H100"}]).to_csv(
            path
        )
        scores = validate("training", str(path))
        assert scores["overall"]["priced"] == 0
        assert sum(scores["unpriced"].values()) == 2


class TestMegatronMemory:
    """Tests of Megatron-LM print the peak of the last stage, of a model of 12 layers: exact to a few percent."""

    LAYERS = {
        "hidden": 512.0, "n_layers": 12.0, "n_heads": 8.0, "n_kv_heads": 8.0, "ffn_hidden": 2048.0, "seq_len": 1024.0, "n_devices": 8.0,
        "micro_batch": 4.0, "global_batch_seqs": 32.0, "recompute": "none", "model": "GPT 12L/512h", "device": "H100-SXM-80GB",
        "dtype": "bf16", "mem_kind": "max_allocated (mem-max-allocated-bytes), logging rank only", "source": "NVIDIA/Megatron-LM mcore_te",
    }  # fmt: skip

    @pytest.mark.parametrize(
        ("given", "gib"),
        [
            ({"tp": 1.0, "pp": 1.0, "dp": 8.0, "zero_stage": 1.0}, 2.51),
            ({"tp": 1.0, "pp": 1.0, "dp": 8.0, "zero_stage": 1.0, "attention": "standard"}, 4.38),
            ({"tp": 1.0, "pp": 1.0, "dp": 8.0, "zero_stage": 0.0, "recompute": "full"}, 2.38),
            ({"tp": 1.0, "pp": 4.0, "dp": 2.0, "zero_stage": 0.0, "notes": "layers per virtual stage 1."}, 2.46),
            ({"tp": 1.0, "pp": 4.0, "dp": 2.0, "zero_stage": 0.0, "attention": "standard"}, 2.50),
        ],
    )  # fmt: skip
    def test_it_is_counted(self, given, gib):
        from capacity.estimators.training_memory import as_seen
        from capacity.validation.memory import parts_of

        row = self.LAYERS | given | {"id": "ci-1"}
        held = as_seen(parts_of(row, read_setup(row)), seen_of(row)) / 2**30
        assert held == pytest.approx(gib, rel=0.04)


def test_memory_with_each_publisher_left_out_is_no_better_and_still_beats_the_rule_of_thumb():
    from capacity.validation.memory import left_out

    scores, known = left_out(), validate("memory")
    (tier,) = [group for group in known["groups"] if group["by"] == {"tier": "B"}]
    assert tier["mdape"] <= scores["tier B"]["mdape"] < tier["baseline_mdape"]
    assert scores["tier A"]["mdape"] < 0.06
