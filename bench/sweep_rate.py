"""How many complete training estimates a second one core makes, against Calculon on the same cases; and how memory and time grow.

    python bench/sweep_rate.py rate [FOLDER OF CALCULON]
    python bench/sweep_rate.py growth [1e3,1e4,1e5,1e6,1e7]

`rate`: layouts of GPT-3 175B on 4,096 A100-80GB, every quantity of each. Both programs take the same layouts in turn, round by
round, so that both see the same machine; time is processor time of one core. Calculon is not shipped here; get it with

    git clone https://github.com/calculon-ai/calculon FOLDER        # Apache-2.0, no dependency

`growth`: each number of rows in a process of its own, as `capacity sweep` runs it (one process, in blocks, every row written to
Parquet), with the peak of its resident memory; then the line through the points, and what it says of 1e8 rows.
"""

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

MODEL, DEVICE, DEVICES, BATCH, SEQ_LEN = "gpt-3-175b", "a100-sxm-80gb", 4096, 4096, 2048
ROWS, ROUNDS, CALCULON_ROWS = 262_144, 5, 150
TARGET, TARGET_RATIO = 300_000.0, 3000.0


def layouts(rows: int) -> dict[str, np.ndarray]:
    """Legal layouts: degrees, micro-batches, sharding, recomputation, and a batch and tokens that make every row another."""
    legal = [
        (tp, pp, DEVICES // (tp * pp), micro, zero, recompute)
        for tp, pp in itertools.product((1, 2, 4, 8), (1, 2, 4, 8, 16, 32))
        for micro in (1, 2, 4)
        for zero in (0, 1)
        for recompute in ("none", "selective", "full")
    ]
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(legal), rows)
    names = ("tp", "pp", "dp", "micro_batch", "zero", "recompute")
    found = {name: np.array(values)[drawn] for name, values in zip(names, zip(*legal, strict=True), strict=True)}
    found["batch"] = found["dp"] * found["micro_batch"] * random.integers(1, 65, rows)
    return found | {"tokens": random.uniform(1e11, 1e13, rows)}


def request(columns: dict[str, np.ndarray], **more: object) -> dict[str, object]:
    """The cases as capacity is asked them."""
    shared = {
        "model": MODEL,
        "device": DEVICE,
        "mode": "train",
        "precision": "fp16",
        "seq_len": SEQ_LEN,
        "interleave": 1,
    }
    return shared | columns | more


def calculon_seconds(folder: str, columns: dict[str, np.ndarray], rows: range) -> float:
    """Processor seconds that Calculon takes for some of the layouts, one after the other."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import logging

    from calculon import System
    from calculon.llm import Llm

    with open(os.path.join(folder, "models", "gpt3-175B.json"), encoding="utf-8") as file:
        model = Llm.Application(json.load(file))
    with open(os.path.join(folder, "systems", "a100_80g.json"), encoding="utf-8") as file:
        system = json.load(file)
    logger = logging.getLogger("calculon")
    cases = [
        {
            "num_procs": DEVICES,
            "tensor_par": int(columns["tp"][row]),
            "pipeline_par": int(columns["pp"][row]),
            "data_par": int(columns["dp"][row]),
            "tensor_par_net": 0,
            "pipeline_par_net": 1,
            "data_par_net": 1,
            "batch_size": int(columns["batch"][row]),
            "microbatch_size": int(columns["micro_batch"][row]),
            "datatype": "float16",
            "fused_activation": True,
            "attention_type": "multihead",
            "activation_recompute": {"selective": "attn_only"}.get(
                columns["recompute"][row], columns["recompute"][row]
            ),
            "pipeline_interleaving": 1,
            "optimizer_sharding": bool(columns["zero"][row] and columns["dp"][row] > 1),
            "tensor_par_comm_type": "rs_ag" if columns["tp"][row] > 1 else "ar",
            "tensor_par_overlap": "none",
            "seq_par_ag_redo": False,
            "data_par_overlap": False,
            "weight_offload": False,
            "activations_offload": False,
            "optimizer_offload": False,
            "training": True,
        }
        for row in rows
    ]
    answered = 0
    start = time.process_time()
    for case in cases:
        try:
            run = Llm(model, logger)
            machine = System(system)
            run.compile(machine, Llm.Execution.from_json(case))
            run.run(machine)
            run.get_stats_json(False)
            answered += 1
        except Llm.Error:
            pass  # does not fit its memory: it stops there, which is quicker than an answer
    taken = time.process_time() - start
    print(f"    Calculon answered {answered} of {len(cases)}; the others do not fit", file=sys.stderr)
    return taken


def rate(calculon: str | None) -> None:
    from capacity.sweeps.columns import answer_columns

    columns = layouts(ROWS)
    answer_columns(request({name: column[:64] for name, column in columns.items()}))
    ours, theirs = [], []
    for turn in range(ROUNDS):
        start = time.process_time()
        answer = answer_columns(request(columns))
        ours.append(ROWS / (time.process_time() - start))
        if calculon:
            rows = range(turn * CALCULON_ROWS, (turn + 1) * CALCULON_ROWS)
            theirs.append(CALCULON_ROWS / calculon_seconds(calculon, columns, rows))
    refused = sum(error is not None for error in answer.errors)
    assert refused == answer.singly == 0
    fits = answer.quantities["train.fits"].mean()
    print(f"{ROWS:,} layouts, {len(answer.quantities)} quantities each, {fits:.0%} fit; {ROUNDS} rounds, one core:")
    print(
        f"  capacity  {statistics.median(ours):10,.0f} a second ({min(ours):,.0f} – {max(ours):,.0f}); target {TARGET:,.0f}"
    )
    start = time.process_time()
    answer_columns(request(columns), intervals=True)
    print(f"  with the interval of each {ROWS / (time.process_time() - start):,.0f} a second")
    if theirs:
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        print(f"  Calculon  {statistics.median(theirs):10,.0f} a second ({min(theirs):,.0f} – {max(theirs):,.0f})")
        print(
            f"  ratio, round by round {statistics.median(ratios):,.0f} ({min(ratios):,.0f} – {max(ratios):,.0f}); target {TARGET_RATIO:,.0f}"
        )


def grid(rows: int) -> dict[str, list[float]]:
    """A grid of at least so many cases: prices fill it up."""
    axes: dict[str, list[object]] = {
        "tp": [1.0, 2.0, 4.0, 8.0],
        "pp": [1.0, 2.0, 4.0, 8.0, 16.0],
        "micro_batch": [1.0, 2.0],
        "zero": [0.0, 1.0, 3.0],
        "recompute": ["none", "selective", "full"],
    }
    each = math.prod(len(values) for values in axes.values())
    return {"price": np.linspace(1.0, 4.0, math.ceil(rows / each)).tolist(), **axes}


def one(rows: int, folder: str) -> None:
    """One sweep, in this process: what it took, as JSON."""
    from capacity.sweeps.run import sweep

    shared = {"model": MODEL, "device": DEVICE, "devices": DEVICES, "mode": "train", "batch": BATCH, "seq_len": SEQ_LEN}
    before = time.process_time(), time.perf_counter()
    found = sweep(grid(rows), shared, output=folder, pareto="time,cost")
    cpu, wall = time.process_time() - before[0], time.perf_counter() - before[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rows": found.rows, "cpu_s": cpu, "wall_s": wall, "peak_bytes": peak}))


def growth(counts: list[int]) -> None:
    points = []
    for rows in counts:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "one", str(rows), os.path.join(folder, "rows")]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            size = sum(entry.stat().st_size for entry in os.scandir(os.path.join(folder, "rows")))
        point = json.loads(told.stdout)
        points.append(point)
        print(
            f"  {point['rows']:12,} rows {point['cpu_s']:9.2f} s of a core {point['wall_s']:9.2f} s "
            f"{point['peak_bytes'] / 2**20:8.0f} MiB at most {size / 2**20:9.1f} MiB written",
            flush=True,
        )
    rows = np.array([point["rows"] for point in points], dtype=float)
    cpu = np.array([point["cpu_s"] for point in points])
    # Relative errors count alike from the smallest to the largest: weights of one over the time.
    design = np.column_stack([np.ones_like(rows), rows]) / cpu[:, None]
    (start, each), *_ = np.linalg.lstsq(design, np.ones_like(cpu), rcond=None)
    print(f"  fit: {start:.2f} s + {each * 1e6:.2f} us a row ({1.0 / each:,.0f} rows a second)")
    large = rows >= 1e5
    power = np.polyfit(np.log(rows[large]), np.log(cpu[large] - start), 1)[0] if large.sum() > 1 else math.nan
    print(f"  power of rows from 1e5 on, the start taken off: {power:.3f} (1 is linear)")
    print(f"  1e8 rows: {(start + each * 1e8) / 60.0:.0f} minutes of a core; memory stays, see the last two lines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("rate").add_argument(
        "calculon", metavar="FOLDER", nargs="?", help="a clone of Calculon's repository"
    )
    commands.add_parser("growth").add_argument("rows", nargs="?", default="1e3,1e4,1e5,1e6,1e7")
    single = commands.add_parser("one")
    single.add_argument("rows", type=int)
    single.add_argument("folder")
    options = parser.parse_args()
    if options.command == "rate":
        rate(options.calculon)
    elif options.command == "one":
        one(options.rows, options.folder)
    else:
        growth([int(float(word)) for word in options.rows.split(",")])


if __name__ == "__main__":
    main()
