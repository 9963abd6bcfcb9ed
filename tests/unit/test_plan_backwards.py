"""Questions asked backwards: the value holds and the next does not, scaling laws give what their papers say."""

import json
from importlib.resources import files
from math import inf

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capacity
from capacity.cli import main
from capacity.errors import CapacityError
from capacity.estimators.case import read_case
from capacity.estimators.training_run import read_workload
from capacity.planning import training_backwards
from capacity.planning.bisection import Trials, first, largest
from capacity.planning.scaling import for_budget, for_loss, law_names, load_law
from capacity.planning.training_backwards import best_run, ladder
from capacity.planning.training_search import limit_of, survey
from capacity.record import replace
from capacity.rendering.record import planned_record
from capacity.rendering.solution import screen
from capacity.rendering.style import Style

SMALL = {"device": "a100-sxm-80gb", "devices": 8, "seq_len": 2048, "batch": 64, "price": 2.0}


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_bisection_of_whole_numbers_is_exact(edge, most):
    trials = Trials(lambda value: (value <= edge, ""))
    value, beyond = largest(trials, 1.0, float(most), whole=True)
    assert value == min(edge, most)
    assert beyond == (edge + 1 if edge < most else None)
    assert len(trials.all()) <= 45


@given(st.floats(1.0, 1e9))
def test_a_bisection_of_sizes_stops_within_its_fraction(edge):
    value, beyond = largest(Trials(lambda size: (size <= edge, "")), 1.0, 1e12, whole=False, within=0.01)
    assert value <= edge < beyond <= value * 1.0101


def test_nothing_holds_or_all_does():
    assert largest(Trials(lambda _: (False, "no")), 1.0, 8.0, whole=True) == (None, 1.0)
    assert largest(Trials(lambda _: (True, "")), 1.0, 7.0, whole=True) == (7.0, None)
    assert first(Trials(lambda value: (value in (3.0, 4.0), "")), [1.0, 2.0, 3.0, 4.0]) == (3.0, 2.0)
    assert first(Trials(lambda _: (False, "")), [1.0, 2.0]) == (None, 2.0)


def test_scaling_laws_give_what_their_papers_say():
    # Chinchilla's own budget: 70 billion parameters on 1.4 trillion tokens by its replication, 40 by its approach 3.
    chinchilla = 6.0 * 70e9 * 1.4e12
    again = for_budget(load_law("besiroglu2024"), chinchilla)
    assert (again.params, again.tokens) == (pytest.approx(70e9, rel=0.1), pytest.approx(1.4e12, rel=0.1))
    assert for_budget(load_law("hoffmann2022"), chinchilla).params == pytest.approx(40e9, rel=0.05)
    # DeepSeek LLM names no number for its 67B; at its law's own budgets tokens and FLOPs a token make up the budget.
    deep = for_budget(load_law("bi2024"), 3e20)
    assert 6.0 * deep.params * deep.tokens == pytest.approx(3e20)
    for name in law_names():
        law = load_law(name)
        assert law.source
        assert law.valid


@pytest.mark.parametrize("name", [name for name in law_names() if load_law(name).form == "loss"])
def test_no_other_model_reaches_the_loss_with_less_work(name):
    law = load_law(name)
    for served in (0.0, 3e12):
        best = for_loss(law, 2.1, served)
        assert law.loss(best.params, best.tokens) == pytest.approx(2.1)
        for scale in (0.9, 0.99, 1.01, 1.1):
            params = best.params * scale
            assert 6.0 * params * law.tokens(params, 2.1) + 2.0 * params * served >= best.work_flop * (1.0 - 1e-9)
    budget = for_budget(law, for_loss(law, 2.1).work_flop)
    assert budget.loss == pytest.approx(2.1, abs=1e-6)
    assert for_budget(law, 1e23, 1e12).work_flop == pytest.approx(1e23, rel=1e-6)


def test_digits_are_those_the_papers_round_from():
    from math import exp

    chinchilla, repeated = load_law("hoffmann2022").constants, load_law("muennighoff2023").constants
    for law, logs, exponents in (
        (chinchilla, (0.5267228, 6.0073404, 6.0179186), (0.33917084, 0.2849083)),
        (repeated, (0.6254804, 6.255414, 7.3049974), (0.3526596, 0.3526596)),
    ):
        assert [law[name] for name in ("E", "A", "B")] == [pytest.approx(exp(one), rel=1e-7) for one in logs]
        assert (law["alpha"], law["beta"]) == exponents
    # DeepSeek's FLOPs a token, from the other half of its law.
    deep = for_budget(load_law("bi2024"), 1e20)
    assert 6.0 * deep.params == pytest.approx(0.1715 * 1e20**0.5243, rel=1e-3)
    herd = for_budget(load_law("herd2024"), 1e22)
    assert herd.tokens == pytest.approx(0.29 * 1e22**0.53)


def test_serving_makes_models_smaller_and_longer_trained():
    # Sardana et al., figure 1, with the digits they take of Chinchilla: for the quality of a 13B model that serves 2 trillion
    # tokens, a 7B model trained longer takes 1.7e22 FLOP, or 17 %, less.
    digits = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.336, "beta": 0.283}
    law = load_law("hoffmann2022")
    law = replace(law, constants=digits)
    tokens = (0.283 * 410.7 / (0.336 * 406.4) * 13e9**0.336) ** (1.0 / 0.283)
    loss, whole = law.loss(13e9, tokens), 6.0 * 13e9 * tokens + 2.0 * 13e9 * 2e12
    served = for_loss(law, loss, 2e12)
    assert served.params == pytest.approx(7e9, rel=0.02)
    assert whole - served.work_flop == pytest.approx(1.7e22, rel=0.01)
    assert 1.0 - served.work_flop / whole == pytest.approx(0.17, abs=0.005)
    plain = for_loss(law, loss)
    assert plain.params == pytest.approx(13e9, rel=1e-3)
    assert served.tokens > plain.tokens


def test_the_largest_model_holds_and_the_next_does_not():
    asked = {key: value for key, value in SMALL.items() if key != "price"} | {"tokens": 1e9}
    found = capacity.solve("params", **asked)
    assert best_run(asked | {"params": found.value}, {}).option is not None
    assert found.beyond.value <= found.value * 1.0101
    assert not found.beyond.holds
    assert best_run(asked | {"params": found.beyond.value}, {}).option is None


def test_the_most_tokens_end_in_time_and_one_step_more_does_not():
    asked = SMALL | {"model": "llama-3.2-1b"}
    found = capacity.solve("tokens", **asked, deadline="2d", budget=700.0)
    run = capacity.estimate(**asked | found.option.options, tokens=found.value, mode="train").sections["train"]
    assert run.quantities["cost"].mid <= 700.0
    more = capacity.estimate(**asked | found.option.options, tokens=found.value + 64 * 2048, mode="train").sections[
        "train"
    ]
    assert more.quantities["cost"].mid > 700.0
    assert run.quantities["run_time"].mid <= 2 * 86400


def test_the_fewest_devices_keep_the_deadline_and_the_next_fewer_do_not():
    asked = {key: value for key, value in SMALL.items() if key != "devices"} | {"model": "llama-3.2-1b", "tokens": 2e11}
    found = capacity.solve("devices", **asked, deadline="4d")
    assert found.option.values["run_time_s"] <= 4 * 86400
    assert found.beyond.value < found.value
    assert not found.beyond.holds
    late = capacity.solve("devices", **asked, deadline="1 s")
    assert late.value is None
    assert "deadline" in late.verdict


def test_the_longest_sequence_fits_and_the_next_does_not():
    asked = {"model": "llama-3.2-1b", "device": "a100-sxm-40gb", "devices": 1, "tokens": 1e9, "batch": 1}
    found = capacity.solve("seq-len", **asked)
    assert found.value % 1024 == 0
    assert best_run(asked | {"seq_len": found.value}, {}).option is not None
    assert best_run(asked | {"seq_len": found.value + 1024.0}, {}).option is None


def test_the_longest_context_that_is_served():
    asked = {"model": "llama-3.1-8b", "device": "rtx-4090", "devices": 1, "mode": "serve", "precision": "fp8"}
    one, many = (capacity.solve("seq-len", **asked, concurrency=count) for count in (1, 8))
    assert one.value > 4 * many.value
    held = capacity.estimate(**asked, tp=1, prompt_len=many.value - 256, output_len=256, concurrency=8)
    assert held.sections["serve"].quantities["running"].mid == 8
    over = capacity.estimate(**asked, tp=1, prompt_len=many.value - 255, output_len=256, concurrency=8)
    assert over.sections["serve"].quantities["running"].mid < 8


def test_the_most_requests_in_flight_keep_the_promise():
    asked = {"model": "llama-3.1-8b", "devices": 1, "mode": "serve", "chunk_tokens": 8192, "tpot_slo": "15ms"}
    found = capacity.solve("concurrency", **asked)
    assert found.facts["tpot_s"] <= 0.015
    assert found.beyond.value == found.value + 1
    assert not found.beyond.holds


def test_less_time_and_less_money():
    asked = {key: value for key, value in SMALL.items() if key != "devices"} | {"model": "llama-3.2-1b", "tokens": 2e10}
    asked |= {"tp": 1, "pp": 1, "zero": 1, "recompute": "none"}
    cheap, soon = capacity.solve("budget", **asked, deadline="20d"), capacity.solve("days", **asked, budget=2000.0)
    assert cheap.facts["cost_usd"] <= soon.facts["cost_usd"] <= 2000.0
    assert soon.facts["run_time_s"] <= cheap.facts["run_time_s"]
    assert capacity.solve("days", **asked, budget=1.0).value is None


RENTED = {
    "model": "llama-3.2-1b", "device": "a100-sxm-80gb", "seq_len": 512, "batch": 8, "tokens": 1e9, "price": 2.0, "zero": 1,
}  # fmt: skip
FEW = 96.0


@pytest.fixture(scope="module")
def everything():
    """Every layout that fits on any number of devices of the ladder, each priced: nothing is left out for being slower."""
    found = []
    for count in [one for one in ladder(RENTED, {}) if one <= FEW]:
        case = read_case(RENTED | {"mode": "train", "devices": count})
        workload, devices = read_workload(case)
        found.append(survey(case, workload, devices, limit_of(case, None), reach=inf).columns)
    names = ("run_time_s", "cost_usd", "power_w")
    return {name: np.concatenate([one[name] for one in found if len(one["row"])]) for name in names}


@pytest.mark.parametrize(
    "more", [{}, {"budget": 11.0}, {"budget": 40.0}, {"budget": 1.0}, {"deadline": "2h"}, {"power_cap": 2e3}], ids=str
)
@pytest.mark.parametrize("what", ["days", "budget"])
def test_the_best_number_of_devices_is_the_best_of_all_layouts_on_any(everything, what, more, monkeypatch):
    monkeypatch.setattr(training_backwards, "MOST_DEVICES", FEW)
    name = {"days": "run_time_s", "budget": "cost_usd"}[what]
    within = everything["cost_usd"] <= more.get("budget", inf)
    within &= everything["run_time_s"] <= (7200.0 if "deadline" in more else inf)
    within &= everything["power_w"] <= more.get("power_cap", inf)
    found = capacity.solve(what, **RENTED, **more)
    if not within.any():
        assert found.value is None
        assert "budget binds" in found.verdict
        return
    assert found.value == pytest.approx(everything[name][within].min(), rel=1e-9)
    assert found.option.values[name] == found.value
    if what == "days" and not more:
        # One schedule, nothing offloaded, no sequence cut: the best of these alone is another, and worse.
        plain = capacity.solve(what, **RENTED, schedule="1f1b", offload="none", cp=1)
        assert plain.value > found.value * 1.01


def test_a_power_cap_is_kept_by_a_slower_layout():
    asked = SMALL | {"model": "llama-3.2-1b", "tokens": 2e9}
    free = capacity.plan(**asked).best.values
    capped = capacity.solve("days", **asked, power_cap=free["power_w"] * 0.8)
    assert capped.option.values["power_w"] <= free["power_w"] * 0.8
    assert capped.value > free["run_time_s"]
    best = capacity.plan(**asked, power_cap=free["power_w"] * 0.8).best
    assert capped.value == pytest.approx(best.values["run_time_s"], rel=1e-9)


def test_what_is_put_on_a_host_has_to_fit_there():
    asked = {"device": "h100-sxm", "devices": 8, "tokens": 1e9}
    found = capacity.solve("params", **asked)
    # 16 bytes a parameter, spread over devices and as much again and twice that beside them.
    assert found.value * 16.0 < 8 * 3 * 80e9


def test_what_cannot_be_is_an_answer_and_what_makes_no_sense_is_one_line(capsys):
    none = capacity.solve("params", target_loss=1.8)
    assert none.value is None
    assert "1.8172" in none.verdict
    small = capacity.solve("tokens", params=1e8, target_loss=2.2)
    assert "larger model" in small.verdict
    assert load_law().tokens(1e8, 2.2) == inf
    for what, request, match in (
        ("speed", {}, "solve"),
        ("params", {"params": 7e9}, "leave"),
        ("params", {"target_loss": 2.0, "law": "hofman"}, "hoffmann2022"),
        ("devices", {"params": 7e9, "target_loss": 2.0}, "scaling law"),
        ("tokens", {"params": 7e9, "devices": 8}, "deadline"),
        ("concurrency", {"params": 7e9}, "no meaning to train"),
    ):
        with pytest.raises(CapacityError, match=match):
            capacity.solve(what, **request)
    assert main(["plan", "--solve", "params", "--target-loss", "1.8"]) == 0
    assert "INFEASIBLE" in capsys.readouterr().out
    assert main(["plan", "--params", "7e9", "--target-loss", "1.8"]) == 2
    assert "--solve" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
def test_screens_stay_in_their_columns_and_json_follows_the_shipped_schema(width):
    schema = json.loads(files("capacity").joinpath("schema/solution-1.json").read_text())
    for found in (
        capacity.solve("params", flop_budget=1e22, served_tokens=1e12, devices=8),
        capacity.solve("params", target_loss=1.8),
        capacity.solve("seq-len", model="llama-3.1-8b", mode="serve", devices=1),
    ):
        text = screen(found, Style(width=width), everything=True)
        assert max(len(line) for line in text.splitlines()) <= width
        whole = json.loads(json.dumps(planned_record(found, "solution"), allow_nan=False))
        jsonschema.validate(whole, schema, cls=jsonschema.Draft202012Validator)
        assert found._repr_html_()
