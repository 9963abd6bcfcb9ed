"""`capacity estimate`: what is printed, where, in which form."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import jsonschema
import pytest
import torch

import capacity
from capacity.cli import COMMANDS, command, main
from capacity.estimators.answer import estimate
from capacity.rendering import selection
from capacity.rendering.notebook import html
from capacity.rendering.record import record
from capacity.rendering.style import Style
from capacity.rendering.text import screen

PERCEPTRON = torch.nn.Sequential(torch.nn.Linear(1000, 500), torch.nn.ReLU(), torch.nn.Linear(500, 1))
REQUESTS = {
    "network": {"module": PERCEPTRON, "input": ["100x1000"]},
    "7e9": {"params": 7e9},
    "does not fit": {"model": "llama-3.1-70b", "mode": "train", "devices": 8},
    "experts": {"model": "deepseek-v3", "mode": "serve", "precision": "fp8"},
    "lora": {"model": "llama-3.1-8b", "mode": "lora", "device": "rtx-4090"},
    "reads only": {"model": "bert-large", "mode": "serve"},
    "sees only": {"model": "vit-b-16", "mode": "serve"},
    "finetune": {"model": "llama-3.1-8b", "mode": "finetune", "tokens": 1e8},
    "service": {"model": "llama-3.1-8b", "mode": "serve", "request_rate": 20.0},
    "platform": {"params": 7e9, "mode": "train", "nodes": 2, "storage": "aws-s3", "encrypt": "at-rest,in-transit"},
    "service's platform": {
        "model": "llama-3.1-8b",
        "mode": "serve",
        "storage": "s3",
        "kv_keep": 600.0,
        "encrypt": "in-transit,confidential",
    },
    "loop": {"model": "llama-3.1-8b", "mode": "rlhf", "devices": 64},
    "ramp": {"params": 7e9, "mode": "train", "eval_interval": 500, "ramp_tokens": 1e10},
}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module", params=REQUESTS)
def answer(request):
    return estimate(**REQUESTS[request.param])


@pytest.fixture(scope="module")
def seven():
    return estimate(params=7e9)


def run(capsys, *arguments):
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(answer, width):
    for everything in (False, True):
        for line in screen(answer, Style(width=width), everything=everything).splitlines():
            assert len(line) <= width, line


def test_the_default_answer_fits_one_screen(seven):
    assert screen(seven, Style(width=80)).count("\n") <= 45
    assert screen(seven, Style(width=120)).count("\n") <= 45


def test_the_verdict_comes_first_in_every_section(answer):
    text = screen(answer, Style(width=120))
    for section in answer.sections.values():
        heading = text.index(section.title.upper())
        verdict = text.index(section.verdict[1:40])
        bar = "Memory" if "memory" in section.breakdowns else "Storage"
        assert heading < verdict < text.index(bar, heading)


def test_what_does_not_fit_is_an_answer(capsys):
    status, out, err = run(capsys, "estimate", "--model", "llama-3.1-70b", "--mode", "train", "--devices", "8")
    assert status == 0
    assert err == ""
    assert "✘ DOES NOT FIT" in out
    assert "too much" in out
    assert "┃" in out  # the end of the device's memory, inside the bar


def test_colours_change_nothing_but_colours(answer):
    coloured = screen(answer, Style(width=80, colour=True))
    assert "\x1b[" in coloured
    plain = screen(answer, Style(width=80))
    bare = [re.sub(r"[█▒▓░▚▞▌┃·]", "#", line).rstrip() for line in ANSI.sub("", coloured).splitlines()]
    assert bare == [re.sub(r"[█▒▓░▚▞▌┃·]", "#", line) for line in plain.splitlines()]


def test_without_unicode_all_is_ascii(answer):
    assert screen(answer, Style(width=80, unicode=False), everything=True).isascii()


def test_everything_shows_every_assumption_and_quantity(seven):
    text = " ".join(screen(seven, Style(width=120), everything=True).split())
    for one in seven.assumptions:
        assert f"[{one.tag}]" in text
        assert " ".join(one.source.split())[:24] in text
    assert "WHAT MAKES THE INTERVALS" in text


def test_every_selected_quantity_exists_somewhere():
    answers = [estimate(**request) for request in REQUESTS.values()]
    names = {name for answer in answers for section in answer.sections.values() for name in section.quantities}
    chosen = {*selection.COUNTED, *selection.ESTIMATED, *selection.RECOMPUTATION, selection.DEVICE_MEMORY}
    assert chosen <= names
    assert set(selection.FACTS) <= {fact for answer in answers for fact in answer.model}


def test_the_memory_bar_adds_up(answer):
    for name, section in answer.sections.items():
        if name == "platform":  # no device's
            continue
        parts = section.breakdowns["memory"]
        assert sum(parts.values()) == pytest.approx(section.quantities["memory_per_device"].mid, rel=1e-6)


def test_json_follows_the_shipped_schema(answer):
    schema = json.loads(files("capacity").joinpath("schema/estimate-1.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    whole = json.loads(json.dumps(record(answer), allow_nan=False))
    jsonschema.validate(whole, schema, cls=jsonschema.Draft202012Validator)
    for section in whole["sections"].values():
        for quantity in section["quantities"].values():
            assert quantity["low"] <= quantity["mid"] <= quantity["high"]
    broken = whole | {"schema": 2}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_json_is_all_of_stdout(capsys):
    status, out, err = run(capsys, "estimate", "--params", "7e9", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["request"]["params"] == 7e9


def test_plain_lines_are_keys_and_values(capsys):
    status, out, _ = run(capsys, "estimate", "--params", "7e9", "--plain")
    assert status == 0
    assert out.isascii()
    pairs = dict(re.fullmatch(r"([^\s:]+): (.*)", line).groups() for line in out.splitlines())
    assert pairs["train.fits"] == "yes"
    assert float(pairs["train.step_time.low"].split()[0]) <= float(pairs["train.step_time"].split()[0])
    assert pairs["train.step_time"].split()[1] == "s"


def test_explain_derives_a_number(capsys):
    status, out, err = run(capsys, "estimate", "--params", "7e9", "--explain", "step_time")
    assert (status, err) == (0, "")
    assert "step_time" in out.splitlines()[0]
    deeper = run(capsys, "estimate", "--params", "7e9", "--explain", "step_time", "--depth", "6")[1]
    assert len(deeper.splitlines()) > len(out.splitlines())
    assert run(capsys, "estimate", "--params", "7e9", "--explain", "step_time", "--plain")[1].isascii()


HOSTILE = "evil\x1b]0;title\x07\x1b[2J\nforged line\u202e\u2028<script>alert(1)</script>'"


def test_hostile_names_stay_words(seven):
    from capacity.record import replace

    section = seven.sections["train"]
    bad = replace(
        seven,
        model={**seven.model, "name": HOSTILE},
        sections={
            "train": replace(
                section, setting=HOSTILE, verdict=HOSTILE, warnings=(HOSTILE,), alternatives=({"device": HOSTILE},)
            )
        },
        warnings=(HOSTILE,),
    )
    for everything in (False, True):
        text = screen(bad, Style(width=120), everything=everything)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert not any(line.startswith("forged") for line in text.splitlines())
    page = html(bad)
    assert "<script>" not in page
    assert "\x1b" not in page


def test_a_notebook_shows_it():
    page = capacity.estimate(params=7e9)._repr_html_()
    assert page.startswith("<div class='capacity-estimate'>")
    assert page.count("<table") == page.count("</table>")
    assert page.count("<div") == page.count("</div>")
    for word in ("Training", "Serving", "MFU", "assumptions"):
        assert word in page


def test_every_option_reaches_the_answer():
    from capacity.estimators import network_answer
    from capacity.estimators.case import KEYS
    from capacity.estimators.deployment import LIMITS

    options = {option.dest for _, group in command("estimate").COMMAND.groups for option in group}
    # An anchor is a file on the command line and what it says of the site in Python.
    of_the_command = {"verbose", "explain", "depth", "plain", "json", "anchor", "target", *LIMITS}
    of_python = {"site", "example_inputs"}
    assert options - of_the_command == {*KEYS, *network_answer.KEYS, "checkpoint"} - of_python


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_eighty_columns_and_has_examples(name, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([name, "--help"])
    assert leaving.value.code == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert f"  capacity {name}" in out
