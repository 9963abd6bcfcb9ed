"""Work of several ranks, started by torchrun and timed inside them: `python -m capacity.measurement.ranks ORDER ANSWER`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from time import perf_counter

from capacity.measurement.case import NotSupportedError, Work
from capacity.record import Record, asdict
from capacity.spec.measurement import Sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.measurement.case import Machine
    from capacity.measurement.sampling import Effort

LONGEST_S = 100.0


class Ranks(Record):
    """What to run: function(parameters, device) of a module gives each rank its run or its phases, and facts."""

    module: str
    function: str
    parameters: dict[str, Any]
    processes: int
    machine: Machine


def work_of_ranks(ranks: Ranks, *, flop: float | None = None, moved_bytes: float | None = None) -> Work:
    """Work whose samples the ranks take themselves: sending them for each run would cost more than a collective."""
    facts: dict[str, Any] = {}

    def sample(effort: Effort) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        answer = launch(ranks, effort)
        facts.update(answer["facts"])
        warm_ups, samples = (tuple(Sample(**one) for one in answer[name]) for name in ("warmups", "samples"))
        return warm_ups, samples

    return Work(sampler=sample, flop=flop, moved_bytes=moved_bytes, facts=lambda: facts)


def launch(ranks: Ranks, effort: Effort) -> dict[str, Any]:
    """Start the ranks and wait for the answer of the first.

    Raises NotSupportedError where a GPU for each is missing, RuntimeError with their last words where they fail.
    """
    if ranks.machine.device == "cuda":
        import torch

        if torch.cuda.device_count() < ranks.processes:
            raise NotSupportedError(f"{ranks.processes} ranks need a GPU each, {torch.cuda.device_count()} can be seen")
    with tempfile.TemporaryDirectory() as folder:
        order, answer = os.path.join(folder, "order.json"), os.path.join(folder, "answer.json")
        with open(order, "w", encoding="utf-8") as file:
            json.dump(
                {
                    "module": ranks.module,
                    "function": ranks.function,
                    "parameters": ranks.parameters,
                    "device": ranks.machine.device,
                    "threads": max(ranks.machine.threads // ranks.processes, 1),
                    "effort": asdict(effort),
                },
                file,
            )
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks.processes), "-m",
            "capacity.measurement.ranks", order, answer,
        ]  # fmt: skip
        threads = str(max(ranks.machine.threads // ranks.processes, 1))
        # Ranks of one machine find each other on its loop-back, whatever its name resolves to.
        surroundings = {"GLOO_SOCKET_IFNAME": "lo", **os.environ, "OMP_NUM_THREADS": threads}
        done = subprocess.run(  # noqa: S603 - this interpreter, this module
            command, env=surroundings, capture_output=True, text=True, check=False, timeout=LONGEST_S + 10.0
        )
        if done.returncode or not os.path.exists(answer):
            lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines()[-1:]
            raise RuntimeError(f"ranks ended with status {done.returncode}: {' '.join(lines[:1])[:200]}")
        with open(answer, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
            return found


def main(order_path: str, answer_path: str) -> None:
    """One rank: build, warm up together, sample until the first rank says enough."""
    import signal

    signal.alarm(int(LONGEST_S))  # an orphan must not live on
    with open(order_path, encoding="utf-8") as file:
        order = json.load(file)
    import torch
    import torch.distributed as dist

    from capacity.measurement.clock import Clock
    from capacity.measurement.sampling import Effort, loops_for

    device = order["device"]
    torch.set_num_threads(order["threads"])
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    rank = dist.get_rank()
    effort = Effort(**order["effort"])
    work, facts = getattr(import_module(order["module"]), order["function"])(order["parameters"], device)
    clock = Clock(torch.cuda.synchronize if device == "cuda" else None, threads=order["threads"])

    def once(loops: int) -> Sample:
        dist.barrier()
        return clock.sample(work, loops) if callable(work) else clock.phased_sample(work)

    warm_ups = [once(1) for _ in range(3)]
    # What ranks tell each other lies where their collectives can reach it.
    loops = torch.tensor([loops_for(warm_ups, effort.sample_s) if callable(work) else 1], device=device)
    dist.broadcast(loops, 0)
    samples: list[Sample] = []
    began = perf_counter()
    going = torch.ones(1, device=device)
    while going.item():
        samples.append(once(int(loops.item())))
        spent = perf_counter() - began
        going[0] = float(
            (spent < effort.budget_s or len(samples) < effort.fewest)
            and len(samples) < effort.most
            and spent < 4.0 * effort.budget_s + 5.0
        )
        dist.broadcast(going, 0)
    if rank == 0:
        partial = answer_path + ".partial"
        with open(partial, "w", encoding="utf-8") as file:
            told = facts() if callable(facts) else facts
            json.dump({"warmups": asdict(warm_ups), "samples": asdict(samples), "facts": told}, file)
        os.replace(partial, answer_path)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:3])
