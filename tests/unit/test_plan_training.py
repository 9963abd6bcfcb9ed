"""The best training layout: no legal layout that fits is better, and what is said of it is what an estimate says."""

import json
from importlib.resources import files
from statistics import median

import jsonschema
import numpy as np
import pytest

import capacity
from capacity.cli import main
from capacity.errors import CapacityError
from capacity.estimators import layout
from capacity.estimators.case import read_case
from capacity.estimators.stacks import load_stack
from capacity.estimators.training_account import account
from capacity.estimators.training_run import price_run, read_workload
from capacity.planning.front import undominated
from capacity.planning.space import blocks_of, cuts_of
from capacity.planning.training_prices import TrainingPrices
from capacity.planning.training_search import FASTEST, limit_of, survey
from capacity.record import replace
from capacity.rendering.choice import screen, short, thinned
from capacity.rendering.record import planned_record
from capacity.rendering.style import Style
from capacity.spec.plan import Plan

SMALL = {"model": "llama-3.2-1b", "device": "a100-sxm-40gb", "devices": 8, "batch": 16, "seq_len": 1024, "tokens": 1e10}
TINY = SMALL | {"devices": 4, "batch": 4, "seq_len": 512}
ROUTED = TINY | {"model": "olmoe-1b-7b", "tp": 2, "cp": 1, "device": "h100-sxm"}


@pytest.fixture(scope="module")
def choice():
    return capacity.plan(**SMALL)


def layouts(request):
    """Every layout of the space as a Plan, one by one."""
    case = read_case(request | {"mode": "train"})
    workload, devices = read_workload(case)
    cuts = cuts_of(
        case.model, workload, devices, {name: float(request[name]) for name in ("tp", "pp", "cp") if name in request}
    )
    for block in blocks_of(case.model, cuts, {}, load_stack("tuned")):
        rows = zip(block.cut, block.interleave, block.replicas, block.share, strict=True)
        for cut, interleave, replicas, share in rows:
            degrees = {name: float(getattr(cuts, name)[cut]) for name in ("tp", "pp", "cp", "dp", "ep", "micro_batch")}
            etp = {"etp": float(cuts.etp[cut])} if block.kind.whole or (cuts.ep > 1.0).any() else {}
            yield Plan(
                **degrees, **etp, **block.kind.words,
                interleave=float(interleave), replicas=float(replicas), recompute_share=float(share),
            )  # fmt: skip


@pytest.mark.parametrize("request_", [TINY, ROUTED], ids=["dense", "experts"])
def test_the_choice_is_the_least_of_all_priced_one_by_one(request_):
    case = read_case(request_ | {"mode": "train"})
    workload, devices = read_workload(case)
    plans = list(layouts(request_))
    runs = [price_run(case, case.model, workload, case.cluster, devices, plan=plan) for plan in plans]
    # Half of the space does not fit.
    limit = median(sum(run.memory.values()) for run in runs)
    found = survey(case, workload, devices, limit)
    fits = [run for run in runs if sum(run.memory.values()) <= limit]
    assert len(plans) == found.legal
    assert 0 < found.fit <= len(fits) < len(runs)
    best = found.columns["step_time_s"].min()
    assert best == pytest.approx(min(sum(run.time.values()) for run in fits), rel=1e-9)
    place = int(found.columns["step_time_s"].argmin())
    alone = price_run(case, case.model, workload, case.cluster, devices, plan=found.plan(place))
    assert best == pytest.approx(sum(alone.time.values()), rel=1e-9)
    assert found.columns["memory_per_device_bytes"][place] == pytest.approx(sum(alone.memory.values()), rel=1e-9)


@pytest.mark.parametrize(
    "request_", [SMALL, ROUTED, SMALL | {"model": "gpt-3-175b", "devices": 96, "batch": 96}], ids=str
)
def test_no_step_is_below_the_floor_its_layout_is_ruled_out_by(request_):
    case = read_case(request_ | {"mode": "train"})
    workload, devices = read_workload(case)
    cuts = cuts_of(case.model, workload, devices, {})
    prices = TrainingPrices(case, workload, devices, cuts)
    tightest = 0.0
    for block in blocks_of(case.model, cuts, {}, prices.stack):
        rows = np.arange(0, len(block), 5)
        share = prices.floor(block)[rows] / prices.step(block, rows)
        assert share.max(initial=0.0) <= 1.0 + 1e-12
        tightest = max(tightest, share.max(initial=0.0))
    assert tightest > 0.3


def test_looking_for_the_fastest_alone_finds_it():
    case = read_case(SMALL | {"mode": "train"})
    workload, devices = read_workload(case)
    limit = limit_of(case, None)
    whole = survey(case, workload, devices, limit)
    found = survey(case, workload, devices, limit, reach=FASTEST)
    least = whole.columns["step_time_s"].min()
    assert found.columns["step_time_s"] == pytest.approx(least)
    assert found.examined < whole.examined
    assert not len(survey(case, workload, devices, limit, reach=FASTEST, ceiling_s=0.99 * least))
    assert len(survey(case, workload, devices, limit, reach=FASTEST, ceiling_s=1.01 * least))


def test_the_least_energy_is_the_least_of_all_priced_one_by_one():
    asked = TINY | {"cp": 1, "pp": 2}
    case = read_case(asked | {"mode": "train"})
    workload, devices = read_workload(case)
    runs = [price_run(case, case.model, workload, case.cluster, devices, plan=plan) for plan in layouts(asked)]
    least = min(account(case, run, alone=True)({})["energy"].mid for run in runs)
    found = survey(case, workload, devices, limit_of(case, None))
    assert found.columns["energy_j"].min() == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize(
    "more",
    [
        {"storage": "nfs", "spares": 1},
        {"teacher": "llama-3.1-8b"},
        {"eval_tokens": 1e7, "eval_interval": 100},
        {"ramp_tokens": 1e9},
        {"recompute": "norms,ffn"},
    ],
    ids=["platform", "teacher", "evaluation", "ramp", "parts"],
)
def test_what_runs_beside_the_steps_is_in_the_choice(more):
    found = capacity.plan(**SMALL, **more, zero=1, offload="none")
    quantities = found.estimate.sections["train"].quantities
    for name in ("step_time", "run_time"):
        assert found.best.values[f"{name}_s"] == pytest.approx(quantities[name].mid, rel=1e-9)
    assert found.best.values["memory_per_device_bytes"] == pytest.approx(quantities["memory_per_device"].mid, rel=1e-9)
    with pytest.raises(CapacityError, match="choose from train"):
        capacity.plan(**SMALL, mode="rlhf")


def test_the_space_holds_what_people_run_and_nothing_illegal():
    case = read_case(
        {"model": "gpt-3-175b", "device": "a100-sxm-80gb", "devices": 1024, "batch": 1536, "mode": "train"}
    )
    workload, devices = read_workload(case)
    cuts = cuts_of(case.model, workload, devices, {})
    blocks = list(blocks_of(case.model, cuts, {}, load_stack("tuned")))
    published = False
    for block in blocks:
        tp, pp, dp = (getattr(cuts, name)[block.cut] for name in ("tp", "pp", "dp"))
        cp, rounds, micro = (getattr(cuts, name)[block.cut] for name in ("cp", "rounds", "micro_batch"))
        assert np.all(tp * pp * dp * cp == devices)
        assert np.all(dp * micro * rounds == 1536)
        assert np.all(96 % tp == 0)
        chunked = block.interleave > 1.0
        assert np.all(rounds[chunked] % pp[chunked] == 0)
        assert np.all(np.ceil(96 / (pp * block.interleave)) * block.interleave == np.ceil(96 / pp))
        kind = block.kind
        assert np.all(pp * block.interleave <= 96)
        # Megatron-LM's own run of this model: tp 8, pp 16, interleaved, selective or full recomputation.
        published |= kind.zero == 1 and bool(np.any((tp == 8) & (pp == 16) & (dp == 8) & (block.interleave == 3)))
        assert kind.schedule == "1f1b" or np.all(pp > 1)
        assert kind.zero < 2 or np.all(pp == 1)
    assert published


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "gemma-2-2b", "falcon-mamba-7b"])
def test_an_estimate_takes_every_layout(name):
    case = read_case({"model": name, "device": "h100-sxm", "devices": 64, "batch": 256, "mode": "train"})
    workload, devices = read_workload(case)
    cuts = cuts_of(case.model, workload, devices, {})
    prices = TrainingPrices(case, workload, devices, cuts)
    for block in blocks_of(case.model, cuts, {}, prices.stack):
        plan = prices.plan(block, slice(0, None, 37))
        columns = {key: value for key, value in plan.__dict__.items() if isinstance(value, np.ndarray)}
        for row in range(len(plan.dp)):
            layout.check(
                case.model, replace(plan, **{key: float(value[row]) for key, value in columns.items()}), devices
            )


def test_what_is_fixed_is_held():
    found = capacity.plan(**SMALL, tp=2, recompute="selective", zero=1)
    assert found.best.options["tp"] == 2
    assert found.best.options["recompute"] == "selective"
    assert found.best.options["zero"] == 1


@pytest.mark.parametrize("objective", ["time", "cost", "energy", "carbon", "throughput-per-device"])
def test_the_estimate_of_the_choice_says_what_the_choice_says(objective):
    found = capacity.plan(**SMALL, objective=objective, price=2.0)
    quantities = found.estimate.sections["train"].quantities
    for name, value in found.best.values.items():
        bare = name.removesuffix("_s").removesuffix("_usd").removesuffix("_j").removesuffix("_g").removesuffix("_w")
        bare = {"memory_per_device_bytes": "memory_per_device", "tokens_per": "tokens_per_s_per_device"}.get(bare, bare)
        if bare in quantities:
            assert quantities[bare].mid == pytest.approx(value, rel=1e-9), name


def test_the_front_is_not_beaten_and_the_runner_up_cuts_otherwise(choice):
    table = np.array([[o.values["run_time_s"], o.values["memory_per_device_bytes"]] for o in choice.front])
    assert np.all(np.diff(table[:, 0]) >= 0)
    assert np.all(np.diff(table[:, 1]) < 0)
    best, other = choice.best.options, choice.runner_up.option.options
    assert (best["tp"], best["pp"]) != (other["tp"], other["pp"])
    slower = choice.runner_up.option.values["step_time_s"] - choice.best.values["step_time_s"]
    assert sum(choice.runner_up.terms.values()) == pytest.approx(slower, abs=1e-4)


def test_the_front_is_a_table(choice):
    rows = choice.rows()
    assert [row["run_time_s"] for row in rows] == sorted(row["run_time_s"] for row in rows)
    assert all({"layout", "tp", "memory_per_device_bytes"} <= row.keys() for row in rows)


def test_undominated_keeps_one_of_equals():
    a, b = np.array([1.0, 2.0, 2.0, 3.0, 1.0]), np.array([3.0, 2.0, 2.0, 3.0, 3.0])
    assert undominated([a, b]).tolist() == [0, 1]
    assert undominated([np.zeros(0), np.zeros(0)]).tolist() == []


def test_several_numbers_of_devices_are_compared_and_limits_bind():
    asked = SMALL | {"offload": "none", "recompute": "selective"}
    found = capacity.plan(**asked | {"devices": "4,8"}, objective="cost", price=2.0)
    assert [one.values["cost_usd"] for one in found.tried] == sorted(one.values["cost_usd"] for one in found.tried)
    quick = found.tried[0].values["run_time_s"]
    within = capacity.plan(**asked | {"devices": [4, 8]}, objective="cost", price=2.0, deadline=0.7 * quick)
    assert within.best.values["run_time_s"] <= 0.7 * quick
    assert within.best.options["devices"] == 8
    none = capacity.plan(**asked | {"devices": [4, 8]}, price=2.0, deadline="1 min")
    assert none.best is None
    assert "deadline" in none.verdict


def test_what_does_not_fit_is_an_answer(capsys):
    found = capacity.plan(model="gpt-3-175b", device="a100-sxm-40gb", devices=8)
    assert found.best is None
    assert found.verdict.startswith("DOES NOT FIT")
    assert found.remedies
    assert main(["plan", "--model", "gpt-3-175b", "--device", "a100-sxm-40gb", "--devices", "8"]) == 0
    assert "DOES NOT FIT" in capsys.readouterr().out
    assert capacity.plan(**SMALL | {"devices": 7, "pp": 1}).verdict.startswith("NO LEGAL LAYOUT")


def test_bad_questions_are_one_line(capsys):
    with pytest.raises(CapacityError, match="objective"):
        capacity.plan(**SMALL, objective="speed")
    with pytest.raises(CapacityError, match="deadline"):
        capacity.plan(**SMALL, deadline="-3 d")
    assert main(["plan", "--params", "1e9", "--objective", "tim"]) == 2
    assert "time" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_stays_in_its_columns(choice, width):
    text = screen(choice, Style(width=width))
    assert max(len(line) for line in text.splitlines()) <= width
    assert "PARETO FRONT" in text
    assert screen(choice, Style(width=width, unicode=False)).isascii()


def test_the_command_that_is_shown_gives_the_same_run(choice, capsys):
    text = screen(choice, Style(width=80))
    lines = text[text.index("  capacity estimate") :].split("\n\n", 1)[0]
    assert main([*lines.replace("\\\n", " ").split()[1:], "--mode", "train", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["sections"]["train"]["quantities"]["step_time"]["mid"] == pytest.approx(
        choice.best.values["step_time_s"], rel=1e-12
    )


def test_json_follows_the_shipped_schema_and_notebooks_show_it(choice):
    schema = json.loads(files("capacity").joinpath("schema/plan-1.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    whole = json.loads(json.dumps(planned_record(choice, "plan"), allow_nan=False))
    jsonschema.validate(whole, schema, cls=jsonschema.Draft202012Validator)
    assert "Pareto front" in choice._repr_html_()


def test_words_of_a_table():
    assert short("dp 2, micro-batch 4, selective recomputation, optimizer on the host") == "dp 2, mb 4, sel, opt off"
    assert thinned(list(range(100)), 3) == [0, 50, 99]
