"""`capacity validate serving`, `inference` and `energy`: rows as others write them are priced, told apart, or counted."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from capacity.catalogue import load_device
from capacity.cli import main
from capacity.errors import FileFormatError, UnknownNameError
from capacity.validation import validate
from capacity.validation.inference import predict
from capacity.validation.inference_rows import engine_of, request_of
from capacity.validation.naming import device_named, model_named, model_of_shape
from capacity.validation.serving import request_of as serving_request
from capacity.validation.tables import CURATED, number, size

KINDS = ("serving", "inference", "energy")
RUN = {
    "id": "x", "engine": "vllm", "model": "meta-llama/Llama-3.1-70B", "device": "h100_sxm", "precision": "fp8",
    "mode": "agg", "input_len": 1024, "output_len": 1024, "batch_size": 16.0, "tp_size": 4.0, "pp_size": 1.0,
    "attention_dp_size": 1.0, "moe_tp_size": 4.0, "moe_ep_size": 1.0, "measured_ttft_ms": 200.0,
    "measured_tpot_ms": 17.0, "clean": True,
}  # fmt: skip
MACHINE = {
    "id": "y", "model": "Llama-3-8B", "device": "RTX 4090", "engine": "llama.cpp CUDA", "weight_dtype": "Q4_K_M",
    "weight_bits_effective": 4.9, "batch_or_concurrency": "1", "metric": "decode_tps", "value": 120.0, "n_devices": "1",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_projects_own_runs_are_scored(kind):
    scores = validate(kind)
    assert scores["kind"] == kind
    assert scores["overall"]["n"] >= 90
    assert scores["overall"]["priced"] >= 0.95 * scores["overall"]["n"]
    assert scores["overall"]["mdape"] < 0.25
    assert scores["overall"]["mdape"] < 0.5 * scores["overall"]["baseline_mdape"]
    assert scores["overall"]["coverage_90"] > 0.6
    table = pd.read_csv(f"{CURATED}/{kind}.csv")
    assert len(table) >= 150
    assert table["source"].notna().all()
    assert table["id"].is_unique


def test_runs_are_grouped_by_mode_and_cleanness_each_metric_apart():
    groups = validate("serving")["groups"]
    for metric in ("tpot_ms", "ttft_ms"):
        mine = [group for group in groups if group["metric"] == metric]
        keys = {tuple(group["by"]) for group in mine}
        assert {("mode", "clean"), ("mode", "clean", "model"), ("mode", "clean", "device")} <= keys
        assert {("mode", "clean", "engine")} <= keys
        clean = next(one for one in mine if one["by"] == {"mode": "agg", "clean": True})
        assert clean["priced"] == clean["n"]
        assert clean["mdape"] < (0.10 if metric == "tpot_ms" else 0.35)


def test_a_row_is_the_users_own_question():
    request, assumed = serving_request(RUN)
    assert request["tp"] == 4.0
    assert request["concurrency"] == 16.0
    assert request["prompt_len"] == 922  # nine tenths of the label
    assert assumed == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tp_size": 64.0, "moe_tp_size": 8.0, "moe_ep_size": 8.0}, {"tp": 8.0, "ep": 8.0, "attention_dp": 1.0}),
        ({"tp_size": 1.0, "attention_dp_size": 8.0, "moe_tp_size": 1.0, "moe_ep_size": 8.0}, {"attention_dp": 8.0}),
        ({"tp_size": 36.0, "moe_tp_size": 36.0}, {"tp": 4.0, "attention_dp": 9.0}),
        ({"attention_dp_size": None, "moe_ep_size": 0.0}, {"attention_dp": 1.0, "length_spread": 0.0}),
    ],
)
def test_widths_are_made_sense_of(changes, expected):
    row = RUN | {"model": "deepseek-ai/DeepSeek-R1", "device": "b200_sxm", "tp_size": 8.0, "moe_tp_size": 8.0} | changes
    request, _ = serving_request(row)
    assert {name: request[name] for name in expected} == expected


def test_pools_that_are_stated_are_used():
    row = RUN | {
        "mode": "disagg", "decode_batch_size": 8.0, "decode_tp_size": 4.0, "decode_num_workers": 2.0,
        "prefill_num_workers": 3.0, "prefill_tp_size": 2.0, "batch_size": None, "tp_size": None,
    }  # fmt: skip
    request, _ = serving_request(row)
    assert (request["prefill_workers"], request["prefill_tp"], request["dp"], request["tp"]) == (3.0, 2.0, 2.0, 4.0)


def test_blank_cells_and_strangers_are_counted_with_a_reason(tmp_path):
    path = tmp_path / "runs.csv"
    rows = [RUN, RUN | {"id": "a", "precision": None, "batch_size": None, "clean": None}]
    rows += [RUN | {"id": "b", "model": "nobody/No-Such-Model-9B"}, RUN | {"id": "c", "device": "warp drive"}]
    rows += [RUN | {"id": "d", "measured_ttft_ms": None}]
    pd.DataFrame(rows).to_csv(path, index=False)
    scores = validate("serving", str(path))
    assert scores["overall"]["n"] == 5
    assert scores["overall"]["priced"] == 3
    assert sum(scores["unpriced"].values()) == 4  # two metrics each
    assert any("No-Such-Model" in why for why in scores["unpriced"])


@pytest.mark.parametrize("kind", KINDS)
def test_bad_tables_are_one_line(kind, tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("id,model\n1,gpt2\n")
    with pytest.raises(FileFormatError, match="lacks the columns"):
        validate(kind, str(empty))
    with pytest.raises(FileFormatError, match="cannot be read"):
        validate(kind, str(tmp_path / "none.csv"))


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("openai/gpt-oss-120b", "gpt-oss-120b"),
            ("nvidia/DeepSeek-R1-0528-NVFP4-v2", "deepseek-r1"),
            ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "qwen3-235b-a22b"),
            ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama-4-scout"),
            ("zai-org/GLM-4.6-FP8", "glm-4.5"),
            ("Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ],
    )
    def test_of_models(self, name, expected):
        assert model_named(name).name == expected

    def test_of_models_nobody_knows(self):
        with pytest.raises(UnknownNameError):
            model_named("no-such-model")
        shape = {"n_layers": 32, "hidden": 4096, "ffn_hidden": 11008, "n_heads": 32, "n_kv_heads": None, "vocab": 50000}
        assert model_of_shape("Own-7B", shape).hidden == 4096
        with pytest.raises(UnknownNameError):
            model_of_shape("Own-8B", shape | {"hidden": None})

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("h200_sxm", "h200-sxm"),
            ("b300_sxm", "b300"),
            ("RTX A6000 48GB", "rtx-a6000"),
            ("Pi CM5 - 16GB (AMD AI Pro R9700 (Vulkan))", "radeon-ai-pro-r9700"),
            ("Ryzen 9 7950X (Nvidia 4070 Ti Super)", "rtx-4070-ti-super"),
            ("Apple M4 Max (40-core GPU)", "apple-m4-max-40"),
            ("Apple M2 Max (CPU cores)", "apple-m2-max-cpu"),
            ("OnePlus 12 (Snapdragon 8 Gen 3, CPU)", "snapdragon-8-gen-3"),
            ("Dell Pro Max with GB10 (Nvidia Spark)", "gb10"),
            ("MI300X", "mi300x"),
        ],
    )
    def test_of_devices(self, name, expected):
        assert device_named(name).id == expected

    @pytest.mark.parametrize(
        ("engine", "device", "expected"),
        [
            ("vLLM 0.11.1", "h100-sxm", "vllm"),
            ("vLLM 0.6.3", "a100-sxm-80gb", "vllm-0.6"),
            ("TensorRT-LLM 1.0 (PyTorch backend)", "b200", "tensorrt-llm"),
            ("llama.cpp/Ollama", "rtx-4090", "llama.cpp"),
            ("torchao torch.compile", "a100-sxm-80gb", "pytorch"),
            ("HF Transformers 4.46", "a100-sxm-80gb", "transformers"),
            ("mlx-lm 0.28.2", "apple-m4-max-40", "mlx"),
            ("something new", "h100-sxm", "vllm"),
        ],
    )
    def test_of_engines(self, engine, device, expected):
        assert engine_of({"engine": engine, "device": device}, load_device(device)) == expected


def test_speeds_are_speeds_whatever_a_row_calls_them():
    rows = pd.DataFrame(
        [
            MACHINE,
            MACHINE | {"id": "z", "metric": "itl_ms", "value": 1e3 / 120.0},
            MACHINE | {"id": "m", "memory_gib": 5.5},
        ]
    )
    found = predict(rows)
    assert list(found["metric"]) == ["decode_tps", "decode_tps", "decode_tps", "peak_memory_bytes"]
    assert found["measured"].iloc[1] == pytest.approx(120.0)
    assert found["mid"].iloc[0] == pytest.approx(found["mid"].iloc[1])
    assert (found["low"] < found["mid"]).all()
    assert (found["mid"] < found["high"]).all()


def test_layers_dealt_over_cards_do_not_speed_one_answer_up():
    one, four = (request_of(MACHINE | {"n_devices": str(n)})[0] for n in (1, 4))
    assert (four["pp"], four["tp"]) == (4.0, 1.0)
    assert one["devices"] == 1.0


def test_cells():
    row = {"a": "3.5", "b": None, "c": float("nan"), "d": 0.0}
    assert [number(row, name) for name in "abcde"] == [3.5, None, None, 0.0, None]
    assert [size(row, name) for name in "abcde"] == [3.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_fits_eighty_columns(kind, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["validate", kind]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    rows = tmp_path / "rows.csv"
    assert main(["validate", kind, "--json", "--predictions", str(rows)]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["schema"] == 1
    assert {"metric", "n", "priced", "mdape", "bias", "coverage_90", "baseline_mdape"} <= set(scores["groups"][0])
    written = pd.read_csv(rows)
    assert {"id", "measured", "low", "mid", "high", "assumed"} <= set(written.columns)
