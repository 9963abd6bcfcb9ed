"""Layouts as columns: a step and its memory priced for many layouts at once equal those of each alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity.estimators import feeding
from capacity.estimators.case import read_case
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.network import Network
from capacity.estimators.pricing import Pricer
from capacity.estimators.stacks import load_stack
from capacity.estimators.training_memory import training_memory
from capacity.estimators.training_run import price_run, read_workload
from capacity.estimators.training_terms import price_terms
from capacity.estimators.training_time import assemble
from capacity.estimators.training_weights import weights_of
from capacity.formulas import schedule
from capacity.spec.plan import Plan

CASES = {
    "dense": {"model": "llama-3.1-8b", "device": "h100-sxm", "devices": 64, "batch": 1024},
    "tied": {"model": "llama-3.2-1b", "device": "a100-sxm-80gb", "devices": 64, "batch": 1024, "stack": "deepspeed"},
    "experts": {"model": "mixtral-8x7b", "device": "h100-sxm", "devices": 64, "batch": 1024, "precision": "fp8"},
}
DEGREES = st.sampled_from([1.0, 2.0, 4.0])


@st.composite
def layouts(draw, experts):
    cuts = {name: draw(DEGREES) for name in ("tp", "pp", "cp")}
    cuts["dp"] = 64.0 / (cuts["tp"] * cuts["pp"] * cuts["cp"])
    if experts:
        cuts |= {"ep": draw(DEGREES), "etp": draw(st.sampled_from([1.0, cuts["tp"]]))}
    return cuts | {
        "micro_batch": draw(DEGREES),
        "interleave": draw(DEGREES),
        "replicas": draw(st.sampled_from([1.0, min(cuts["dp"], 2.0)])),
        "recompute_share": draw(st.sampled_from([0.5, 1.0])),
    }


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_columns_of_layouts_equal_each_layout_alone(name, data):
    case = read_case(CASES[name] | {"mode": "train"})
    workload, devices = read_workload(case)
    rows = data.draw(st.lists(layouts(name == "experts"), min_size=1, max_size=5))
    kind = {
        "zero": data.draw(st.sampled_from([0, 1, 2, 3])),
        "recompute": data.draw(st.sampled_from(["none", "selective", "full"])),
        "offload": data.draw(st.sampled_from([(), ("optimizer",), ("optimizer", "parameters"), ("activations",)])),
        "schedule": data.draw(st.sampled_from(["1f1b", "gpipe", "dualpipe"])),
        "cp_kind": data.draw(st.sampled_from(["ring", "gather", "ulysses"])),
    }
    plan = Plan(**{key: np.array([row[key] for row in rows]) for key in rows[0]}, **kind)
    device, model, compute = case.cluster.device, case.model, workload.precision.compute
    stack = load_stack(case.request.get("stack", "tuned"), device, compute)
    wide = frozenset({"head", "router"} if compute == "fp8" else ())
    pricer = Pricer(device, case.profile, compute, {"": workload.precision.weight_bits / 8.0}, 2.0, wide=wide)
    rounds = schedule.micro_batches(workload.global_batch, plan.dp, plan.micro_batch)
    weights = weights_of(lower(model, Tokens()))
    network = Network.of(case.cluster, case.profile)
    table = lower(model, feeding.learn(model, plan.micro_batch, workload.seq_len))
    fused = stack.fused_attention > 0.0
    terms = price_terms(model, table, weights, workload, plan, network, pricer, rounds, fused=fused)
    step = sum(assemble(terms, stack, case.profile.host_layer_s).values())
    held = training_memory(model, weights, workload, plan, rounds, case.profile.context_bytes)
    for number, row in enumerate(rows):
        run = price_run(case, model, workload, case.cluster, devices, plan=Plan(**row, **kind))
        assert np.broadcast_to(step, len(rows))[number] == pytest.approx(sum(run.time.values()), rel=1e-9)
        assert np.broadcast_to(sum(held.values()), len(rows))[number] == pytest.approx(
            sum(run.memory.values()), rel=1e-9
        )
