"""How long the whole search of training layouts takes, and its optimum against that of Calculon's own search.

    python bench/plan_search.py [--pairs N] [--calculon DIR [--found FILE]]

GPT-3 175B in batches of 4,096 sequences of 2,048 tokens on 4,096 A100 SXM 80GB. Times are of one core, and as a ratio to a
control kernel (the powers and sums of NumPy columns) that runs in turn with the search. Needs NumPy, as planning does.

With a checkout of Calculon (git clone https://github.com/calculon-ai/calculon; it needs psutil) both optima are priced by either
model, neither offloading: Calculon's by its own search, `llm-optimal-execution`, on its own description of the A100 without
the second memory. That search takes some 25 minutes of one core; --found keeps its result in a file, and takes it from there
where the file is. Nothing of Calculon is part of this package.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import capacity
from capacity.estimators.case import read_case
from capacity.estimators.training_run import price_run, read_workload
from capacity.planning.training_search import limit_of, survey
from capacity.spec.plan import Plan

DEVICES, BATCH, SEQ_LEN = 4096, 4096, 2048
REQUEST = {
    "model": "gpt-3-175b", "device": "a100-sxm-80gb", "devices": DEVICES, "batch": BATCH, "seq_len": SEQ_LEN, "tokens": 3e11,
}  # fmt: skip
BAR_S = 5.0
RECOMPUTE = {"none": "none", "attn_only": "selective", "full": "full"}


def control() -> float:
    """Seconds of a fixed amount of column work."""
    start = time.perf_counter()
    column = np.linspace(1.0, 2.0, 8192)
    for _ in range(400):
        np.sum((column**3.0 + column * 2.0) ** (1.0 / 3.0))
    return time.perf_counter() - start


def searched() -> tuple[float, object]:
    """Seconds of the whole answer, and the answer."""
    start = time.perf_counter()
    found = capacity.plan(**REQUEST)
    return time.perf_counter() - start, found


def calculon(folder: Path) -> tuple[object, object, object, object]:
    """Its modules, its application, and its A100 without the second memory."""
    sys.path.insert(0, str(folder))
    import calculon as package
    from calculon.llm import Llm, System
    from calculon.llm.optimal_execution import OptimalExecution

    application = Llm.Application(package.io.read_json_file(str(folder / "models" / "gpt3-175B.json")))
    described = package.io.read_json_file(str(folder / "systems" / "a100_80g.json"))
    described["mem2"]["GiB"] = 0
    return Llm, OptimalExecution, application, System(described)


def theirs(tools, found: Path | None) -> dict:
    """The best execution of their own search, with how many it ran in how much processor time."""
    if found is not None and found.is_file():
        return json.loads(found.read_text())
    Llm, search, application, system = tools  # noqa: N806 - their class
    started, executions, good, best = time.process_time(), 0, 0, []
    for tp in Llm.get_all_tensor_parallelisms(DEVICES, application.hidden, application.attn_heads):
        for pp in Llm.get_all_pipeline_parallelisms(DEVICES, tp, application.num_blocks):
            dp = Llm.get_data_parallelism(DEVICES, tp, pp)
            if search.get_batch_size(dp, BATCH) != BATCH:
                continue
            for chunks in Llm.get_valid_pipeline_interleavings(application.num_blocks, pp):
                for recompute in RECOMPUTE:
                    for sharding in [True, False] if dp > 1 else [False]:
                        for kind in ("ar", "p2p_rs_ag", "rs_ag"):
                            one = search.search(
                                False, 5, False, DEVICES, BATCH, "float16", application, system, tp, pp, dp, chunks, BATCH,
                                recompute, sharding, kind, [True], True, True, True,
                            )  # fmt: skip
                            best = search.update_list(best, one[0], 5)
                            executions, good = executions + one[1], good + one[2]
            print(f"tp {tp} pp {pp}: {executions:,} executions, best {best[:1] and best[0][0]:.2f}/s", file=sys.stderr)
    result = {
        "cpu_s": time.process_time() - started,
        "executions": executions,
        "good": good,
        "best": [(rate, execution) for rate, execution, _ in best],
    }
    if found is not None:
        found.write_text(json.dumps(result))
    return result


def priced_by_them(tools, plan: Plan) -> float | None:
    """Seconds of a step by their model, with the best of all it leaves open; None where it fits in none."""
    _, search, application, system = tools
    recompute = next(word for word, ours in RECOMPUTE.items() if ours == plan.recompute)
    best = 0.0
    for kind in ("ar", "p2p_rs_ag", "rs_ag"):
        tp, pp, dp, chunks, micro = (int(one) for one in (plan.tp, plan.pp, plan.dp, plan.interleave, plan.micro_batch))
        # Their search of one layout tries every micro-batch; ours is the one whose number is asked for.
        one, *_ = search.search(
            False, 10**6, False, DEVICES, BATCH, "float16", application, system, tp, pp, dp, chunks, BATCH, recompute,
            plan.zero > 0, kind, [True], False, True, True,
        )  # fmt: skip
        rates = [rate for rate, execution, _ in one if execution["microbatch_size"] == micro]
        best = max([best, *rates])
    return BATCH / best if best else None


def plan_of(execution: dict) -> Plan:
    """One of their executions as a layout."""
    return Plan(
        tp=float(execution["tensor_par"]),
        pp=float(execution["pipeline_par"]),
        dp=float(execution["data_par"]),
        micro_batch=float(execution["microbatch_size"]),
        interleave=float(execution["pipeline_interleaving"]),
        zero=int(execution["optimizer_sharding"]),
        recompute=RECOMPUTE[execution["activation_recompute"]],
    )


def told(plan: Plan) -> str:
    return (
        f"dp {plan.dp:g} tp {plan.tp:g} pp {plan.pp:g} x {plan.interleave:g} micro-batch {plan.micro_batch:g} "
        f"ZeRO-{plan.zero} {plan.recompute}"
    )


def compare(tools, result: dict) -> None:
    """Both optima by either model: the same space, nothing offloaded, no context parallelism, ZeRO up to 1."""
    held = {"offload": (), "cp": 1.0, "schedule": "1f1b", "recompute_share": 1.0}
    case = read_case(REQUEST | {"mode": "train"})
    workload, devices = read_workload(case)
    shared = survey(case, workload, devices, limit_of(case, None), held | {"zero": 1.0})
    ours = shared.plan(int(shared.columns["step_time_s"].argmin()))
    other = plan_of(result["best"][0][1])

    def priced_by_us(plan: Plan) -> tuple[float, bool]:
        run = price_run(case, case.model, workload, case.cluster, devices, plan=plan)
        return sum(run.time.values()), sum(run.memory.values()) <= limit_of(case, None)

    print(
        f"\nCalculon: {result['executions']:,} executions, {result['good']:,} that fit, {result['cpu_s']:,.0f} s of processor"
    )
    print(f"{'seconds of a step by':<66}  {'capacity':>10}  {'Calculon':>10}")
    for name, plan in (("capacity's optimum", ours), ("Calculon's optimum", other)):
        seconds, fits = priced_by_us(plan)
        by_them = priced_by_them(tools, plan)
        shown = "no fit" if by_them is None else f"{by_them:.3f}"
        print(f"{name}: {told(plan):<48}  {seconds:>8.3f}{' ' if fits else '!'}  {shown:>10}")
    seconds, _ = priced_by_us(other)
    ahead = int((shared.columns["step_time_s"] < seconds * (1.0 - 1e-9)).sum())
    print(
        f"Calculon's optimum is number {ahead + 1:,} of {shared.fit:,} layouts that fit by capacity; ! does not fit by capacity"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--calculon", type=Path)
    parser.add_argument("--found", type=Path)
    options = parser.parse_args()
    searched()
    pairs = [(control(), searched()) for _ in range(options.pairs)]
    seconds = sorted(one[0] for _, one in pairs)
    ratio = statistics.median(one[0] / short for short, one in pairs)
    found = pairs[0][1][1]
    print(found.best.setting)
    print(
        f"step {found.best.values['step_time_s']:.3f} s, {found.space.legal:,} legal layouts, {found.space.fit:,} that fit"
    )
    print(f"whole answer: median {statistics.median(seconds):.2f} s, fastest {seconds[0]:.2f} s (bar {BAR_S:g} s)")
    print(
        f"{ratio:.0f} times the control kernel; {found.space.legal / statistics.median(seconds):,.0f} layouts a second"
    )
    if options.calculon is not None:
        tools = calculon(options.calculon)
        compare(tools, theirs(tools, options.found))


if __name__ == "__main__":
    main()
