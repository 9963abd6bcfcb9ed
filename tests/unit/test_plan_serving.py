"""The best way to serve: no legal one that keeps the promise is better, and an estimate says the same of it."""

import json
from importlib.resources import files

import jsonschema
import pytest

import capacity
from capacity.cli import main
from capacity.errors import CapacityError
from capacity.estimators.replica import load_replica
from capacity.estimators.service import point
from capacity.planning.serving_search import read_site, replicas_of, search
from capacity.rendering.choice import screen
from capacity.rendering.record import planned_record
from capacity.rendering.style import Style

ASKED = {"model": "llama-3.1-8b", "device": "h100-sxm", "devices": 2, "mode": "serve", "chunk_tokens": 8192}
PROMISE = {"tpot_slo": "12ms", "ttft_slo": "500ms"}


@pytest.fixture(scope="module")
def choice():
    return capacity.plan(**ASKED, **PROMISE)


def test_no_load_of_any_replica_that_keeps_the_promise_is_cheaper(choice):
    site = read_site(ASKED | PROMISE, None)
    cheapest = float("inf")
    for plan in replicas_of(site):
        alone = load_replica(site.case, site.case.model, site.workload, site.case.cluster, site.service, plan)
        for running in range(1, 200, 3):
            one = point(site.case, site.workload, site.service, alone, float(running), 0.95)
            if one.keeps(site.promise):
                rate = one.rate * site.workload.output_len * 2.0 / plan.devices
                cheapest = min(cheapest, 2.0 * site.case.cluster.usd_per_device_hour / 3600.0 / rate * 1e6)
    # Concurrency is bisected to a thirtieth.
    assert choice.best.values["cost_per_million_tokens_usd"] <= cheapest * 1.03
    assert choice.best.values["tpot_s"] <= 0.012
    assert choice.best.values["ttft_s"] <= 0.5


def test_the_most_requests_are_the_most(choice):
    found = search(read_site(ASKED | PROMISE, None))
    row = max(found.rows, key=lambda one: one.values["tokens_per_s_per_device"])
    site, alone = row.site, row.point.load
    more = point(site.case, site.workload, row.service, alone, row.values["concurrency"] * 1.04 + 1.0, 0.95)
    assert not more.keeps(site.promise)


def test_an_estimate_of_the_choice_says_the_same(choice):
    quantities = choice.estimate.sections["serve"].quantities
    assert quantities["tokens_per_s"].mid == pytest.approx(choice.best.values["tokens_per_s"], rel=0.05)
    assert quantities["tpot"].mid <= choice.best.values["tpot_s"] * 1.02
    held = choice.best.values["memory_per_device_bytes"]
    assert quantities["memory_per_device"].mid <= held


def test_prompt_workers_are_dealt_out_of_the_same_devices():
    found = search(read_site({"model": "llama-3.1-70b", "devices": 8, "precision": "fp8", "tpot_slo": "25ms"}, None))
    pooled = [row for row in found.rows if row.service.prefill_workers]
    assert pooled
    for row in pooled:
        unit = row.plan.devices + row.service.prefill_workers * row.service.prefill_plan.devices
        assert unit * row.replicas <= row.values["devices"] == 8.0


def test_a_rate_takes_as_many_replicas_as_it_needs():
    slow = capacity.plan(**ASKED | {"devices": None, "tp": 1, "attention_dp": 1}, request_rate=4, tpot_slo="12ms")
    fast = capacity.plan(**ASKED | {"devices": None, "tp": 1, "attention_dp": 1}, request_rate=100, tpot_slo="12ms")
    assert slow.best.values["devices"] < fast.best.values["devices"]
    assert fast.best.values["tokens_per_s"] == pytest.approx(100 * 256)
    few = capacity.plan(**ASKED, request_rate=4000, tpot_slo="12ms")
    assert few.best is None
    assert "4000 requests a second" in few.verdict


def test_what_cannot_be_promised_says_what_binds(capsys):
    none = capacity.plan(**ASKED, tpot_slo="100us")
    assert none.best is None
    assert "next token" in none.verdict
    big = capacity.plan(**ASKED | {"model": "llama-3.1-405b"})
    assert big.verdict.startswith("DOES NOT FIT")
    assert main(["plan", "--model", "llama-3.1-405b", "--mode", "serve", "--devices", "1"]) == 0
    assert "DOES NOT FIT" in capsys.readouterr().out
    with pytest.raises(CapacityError, match="deadline"):
        capacity.plan(**ASKED, deadline="3d")
    with pytest.raises(CapacityError, match="writes no text"):
        capacity.plan(**ASKED | {"model": "bert-base"})


def test_formats_are_compared_and_narrow_ones_warned_of():
    found = capacity.plan(**ASKED | {"devices": 1, "precision": "bf16,fp8"})
    assert [one.options["precision"] for one in found.tried] == ["fp8", "bf16"]
    assert "quality" in found.warnings[0]


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_stays_in_its_columns_and_its_command_runs(choice, width, capsys):
    text = screen(choice, Style(width=width))
    assert max(len(line) for line in text.splitlines()) <= width
    lines = text[text.index("  capacity estimate") :].split("\n\n", 1)[0]
    assert main([*lines.replace("\\\n", " ").split()[1:], "--json"]) == 0
    json.loads(capsys.readouterr().out)


def test_json_follows_the_shipped_schema(choice):
    schema = json.loads(files("capacity").joinpath("schema/plan-1.json").read_text())
    whole = json.loads(json.dumps(planned_record(choice, "plan"), allow_nan=False))
    jsonschema.validate(whole, schema, cls=jsonschema.Draft202012Validator)
    assert "Pareto front" in choice._repr_html_()
