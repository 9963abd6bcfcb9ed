"""The model presets: each is sourced, lowers, and counts what its publisher says."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from capacity.catalogue import models
from capacity.catalogue.entry import read_entry
from capacity.catalogue.models import ModelPreset, list_models, load_model, load_preset
from capacity.errors import CapacityError, FileFormatError, InputError, UnknownNameError
from capacity.estimators.lowering import Tokens, active_parameter_count, lower, parameter_count

PRESETS = {preset.id: preset for preset in list_models()}
TOTALS = {
    row["id"]: row
    for row in csv.DictReader(
        (Path(__file__).parents[1] / "golden" / "model_parameters.csv").read_text(encoding="utf-8").splitlines()
    )
}
HUB = "https://huggingface.co/"

# Published to the last parameter, on the model's card or in its checkpoint's header.
EXACT = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "pythia-12b": 11_846_072_320,
    "gpt-neox-20b": 20_554_567_680,
    "bloom-176b": 176_247_271_424,
    "opt-13b": 12_853_473_280,
    "llama-2-7b": 6_738_415_616,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "qwen2.5-72b": 72_706_203_648,
    "gemma-2-27b": 27_227_128_320,
    "deepseek-v2": 235_741_434_880,
    "deepseek-v2-lite": 15_706_484_224,
    "olmoe-1b-7b": 6_919_161_856,
    "phi-3.5-moe": 41_873_153_344,
    "command-r-plus": 103_810_674_688,
    "starcoder2-15b": 15_957_889_024,
    "gemma-3-4b": 4_300_079_472,
    "gemma-3-12b": 12_187_325_040,
    "gemma-3-27b": 27_432_406_640,
    "llama-4-scout": 108_641_793_536,
}

# Where our count and the published one differ by more than 3 %: by how much, and why.
DIFFERENT = {
    "chinchilla-70b": (-0.0755, "projections of relative positions are left out, see its notes"),
    "gopher-280b": (-0.0776, "projections of relative positions are left out, see its notes"),
    "falcon-40b": (0.0326, "the name rounds down"),
    "mamba2-1.3b": (0.0337, "the name rounds down"),
    "xlm-roberta-base": (0.0307, "the paper rounds down"),
    "whisper-tiny": (-0.0318, "the publisher rounds up"),
}


def counts(preset: str) -> tuple[float, float, float]:
    """Parameters, those one token passes, and those of look-up tables."""
    table = lower(load_model(preset), Tokens())
    tables = sum(op.count * op.weight_elements for op in table if op.kind == "embedding")
    return parameter_count(table), active_parameter_count(table), tables


def test_there_are_presets_of_the_families_people_ask_for():
    assert len(PRESETS) >= 100
    assert {preset.family for preset in PRESETS.values()} >= {
        "gpt-2", "gpt-3", "megatron", "opt", "bloom", "pythia", "falcon", "llama", "llama-4", "mistral", "mixtral",
        "qwen2.5", "qwen3", "deepseek", "gemma", "phi", "olmo", "glm", "kimi", "minimax", "gpt-oss", "bert", "t5",
        "vit", "whisper", "mamba",
    }  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_is_complete_and_sourced(preset: ModelPreset):
    assert preset.id == preset.id.lower()
    assert preset.name
    assert preset.family
    assert preset.organisation
    year, month = preset.released.split("-")
    assert 2017 <= int(year) <= 2026
    assert 1 <= int(month) <= 12
    assert preset.source_title
    assert preset.source_url.startswith("https://")
    assert preset.source_date >= "2017"
    assert preset.published_params
    assert preset.published_active_params is None or preset.published_active_params < preset.published_params
    assert preset.config["model_type"]
    assert preset.config["architectures"]


def test_names_are_unique():
    names = [preset.name.lower() for preset in PRESETS.values()]
    assert len(names) == len(set(names))


def test_the_golden_table_and_the_catalogue_hold_the_same_models():
    assert sorted(TOTALS) == sorted(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_counts_are_those_of_the_golden_table(preset: str):
    total, active, _ = counts(preset)
    assert (total, active) == (float(TOTALS[preset]["parameters"]), float(TOTALS[preset]["active_parameters"]))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_counts_agree_with_the_publisher(preset: ModelPreset):
    total, active, tables = counts(preset.id)
    assert preset.published_params
    error = total / preset.published_params - 1
    if preset.id in DIFFERENT:
        expected, _ = DIFFERENT[preset.id]
        assert error == pytest.approx(expected, abs=0.0005)
    else:
        assert abs(error) <= 0.03
    if preset.published_active_params:
        # Some publishers count the embeddings into what a token passes, some do not; names round to a billion.
        nearest = min(active, active - tables, key=lambda count: abs(count - preset.published_active_params))
        assert nearest == pytest.approx(preset.published_active_params, rel=0.08, abs=0.6e9)


@pytest.mark.parametrize("preset", EXACT)
def test_counts_are_exact_where_the_publisher_is(preset: str):
    assert counts(preset)[0] == EXACT[preset]
    assert PRESETS[preset].published_params == EXACT[preset]


@pytest.mark.parametrize("preset", [p for p in PRESETS.values() if p.source_url.startswith(HUB)], ids=lambda p: p.id)
def test_every_preset_answers_to_its_hub_name(preset: ModelPreset):
    assert load_preset(preset.source_url.removeprefix(HUB)).id == preset.id


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("llama-3.1-70b", "llama-3.1-70b"),
        ("  Llama 3.1 70B ", "llama-3.1-70b"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
        ("google/gemma-2-27b-it", "gemma-2-27b"),
        ("gpt_oss_120b", "gpt-oss-120b"),
    ],
)
def test_names_are_found_as_people_write_them(given: str, found: str):
    assert load_preset(given).id == found


def test_every_alias_leads_to_a_preset():
    names = read_entry(str(Path(models.__file__).parent / "models" / "aliases.toml"), "catalogue").data
    assert set(names["aliases"].values()) <= set(PRESETS)
    assert not set(names["aliases"]) & set(PRESETS)


def test_a_misspelt_name_gets_the_nearest():
    with pytest.raises(UnknownNameError, match=r"lama-3\.1-8b.*llama-3\.1-8b"):
        load_model("lama-3.1-8b")


@pytest.mark.parametrize(
    "name",
    ["", "/", "..", "../gpt2", "/etc/passwd", "a/../gpt2", "x/..", "models/aliases", "aliases", "gpt2.toml", "gpt2\0",
     "..\\gpt2", "~", "*", "a" * 10_000, "é", "gpt2/"],
)  # fmt: skip
def test_a_name_that_is_no_id_opens_no_file(name: str):
    with pytest.raises(UnknownNameError):
        load_preset(name)


def test_listing_searches_every_word_and_filters_by_family():
    assert {preset.id for preset in list_models("meta 405b")} == {"llama-3.1-405b"}
    assert {preset.family for preset in list_models(family="gpt-oss")} == {"gpt-oss"}
    assert {preset.family for preset in list_models(family="qwen")} >= {"qwen2", "qwen2.5", "qwen3"}
    assert list_models("no such model") == ()


PRESET = """
name = "Mine"
[source]
title = "my notes"
date = "2026-01-02"
[config]
model_type = "llama"
vocab_size = 1000
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 2
num_attention_heads = 4
tie_word_embeddings = true
"""


def user_folder(tmp_path: Path, text: str | bytes, name: str = "mine") -> str:
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models" / f"{name}.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(tmp_path)


def test_a_users_preset_is_read_and_tagged(tmp_path: Path):
    folder = user_folder(tmp_path, PRESET)
    model = load_model("mine", [folder])
    # 1000*64 embeddings, two layers of 4*64*64 + 3*64*128 and two norms of 64, a final norm
    assert parameter_count(lower(model, Tokens())) == 64_000 + 2 * (16_384 + 24_576 + 128) + 64
    assert model.source.startswith(f"{folder}: my notes")
    assert load_preset("mine", [folder]).origin == folder
    assert "mine" in {preset.id for preset in list_models(folders=[folder])}


def test_a_users_preset_comes_before_ours(tmp_path: Path):
    folder = user_folder(tmp_path, PRESET, "gpt2")
    assert load_preset("gpt2", [folder]).name == "Mine"
    assert load_preset("gpt2").name == "GPT-2 small"
    assert load_preset("llama-3-8b", [folder]).origin == "catalogue"


def test_null_is_said_apart_from_missing(tmp_path: Path):
    folder = user_folder(tmp_path, 'null = ["head_dim"]\n' + PRESET)
    assert load_preset("mine", [folder]).config["head_dim"] is None


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (PRESET.replace("[source]", "[sauce]"), InputError, "source is missing"),
        (PRESET.replace("date =", "day ="), InputError, "date is missing"),
        (PRESET.replace("[config]", "[setup]"), InputError, "config is missing"),
        (PRESET.replace('"Mine"', "7"), InputError, "name is 7"),
        ("published_params = -1\n" + PRESET, InputError, "published_params is -1"),
        ("published_params = nan\n" + PRESET, InputError, "published_params is nan"),
        ("null = 3\n" + PRESET, InputError, "null is 3"),
        (PRESET.replace("hidden_size = 64", "hidden_size = -64"), InputError, "hidden_size is -64"),
        (PRESET[:-20], FileFormatError, "not a TOML file"),
        (b"\xff\xfe", FileFormatError, "not a TOML file"),
        ("#" * 1_000_001, FileFormatError, "larger than"),
        ("a = " + "[" * 100_000, FileFormatError, "mine"),
    ],
)
def test_a_faulty_preset_is_one_line(tmp_path: Path, text: str | bytes, kind: type[CapacityError], said: str):
    folder = user_folder(tmp_path, text)
    with pytest.raises(kind, match=said) as caught:
        load_model("mine", [folder])
    assert "mine.toml" in str(caught.value) or folder in str(caught.value)
    assert "\n" not in str(caught.value)


def test_presets_stay_small():
    for file in (Path(models.__file__).parent / "models").glob("*.toml"):
        assert file.stat().st_size < 6000, file.name
