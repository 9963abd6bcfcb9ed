"""The ruler held against others in the same minutes: torch.utils.benchmark, a search for the most a product reaches, STREAM in C."""

from __future__ import annotations

from time import perf_counter

from capacity.measurement import statistics
from capacity.measurement.case import FULL, Kernel, NotSupportedError, Work
from capacity.measurement.clock import Clock
from capacity.measurement.kernels.operands import dtype_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine
    from capacity.measurement.sampling import Effort
    from capacity.spec.measurement import Sample

SIDES = {"cpu": (256, 384, 512, 768, 1024), "cuda": (2048, 4096, 8192)}
ROUNDS = 6
# mamf-finder's rule: the median of the five fastest.
FASTEST = 5
STREAM_BYTES = 64 * 2**20


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if profile != FULL:
        return
    for dtype in ("fp32", "bf16"):
        yield {"against": "gemm", "dtype": dtype}
    if machine.device == "cpu":
        yield {"against": "stream", "dtype": "fp32"}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    if parameters["against"] == "stream":
        return _stream(machine)
    return _gemm(parameters["dtype"], machine)


def _gemm(dtype: str, machine: Machine) -> Work:
    import torch
    from torch.utils.benchmark import Timer

    facts: dict[str, Any] = {}
    synchronise = torch.cuda.synchronize if machine.device == "cuda" else None
    clock = Clock(synchronise, threads=machine.threads)

    def sample(effort: Effort) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        kept: list[Sample] = []
        best = dict.fromkeys(("here", "torch.utils.benchmark", "search"), 0.0)
        for side in SIDES[machine.device]:
            left, right = (torch.randn(side, side, device=machine.device).to(dtype_of(dtype)) for _ in range(2))
            run = lambda left=left, right=right: torch.mm(left, right)  # noqa: E731
            timer = Timer("run()", globals={"run": run}, num_threads=machine.threads)
            run()
            loops = max(1, round(effort.sample_s * 2.0 / max(clock.sample(run).wall_s, 1e-9)))
            own: list[Sample] = []
            theirs: list[float] = []
            single: list[float] = []
            for _ in range(ROUNDS):
                own += [clock.sample(run, loops) for _ in range(5)]
                theirs += timer.blocked_autorange(min_run_time=0.02).times
                single += _bursts(run, synchronise)
            flop = 2.0 * side**3
            chosen, corrected = statistics.undisturbed(own)
            mine = sorted(statistics.seconds(one) for one in chosen)
            found = {
                "here": flop / statistics.quantile(mine, 0.5 if corrected else 0.05),
                "torch.utils.benchmark": flop / statistics.quantile(sorted(theirs), 0.05),
                "search": flop / sorted(single)[FASTEST // 2],
            }
            facts[f"flop_per_s_{side}"] = found
            best = {name: max(best[name], rate) for name, rate in found.items()}
            if best["here"] == found["here"]:
                kept = own
        facts["peak_flop_per_s"] = best
        facts["share_of_the_best"] = best["here"] / max(best["torch.utils.benchmark"], best["search"])
        return (), tuple(kept)

    return Work(sampler=sample, facts=lambda: facts)


def _bursts(run: Callable[[], object], synchronise: Callable[[], object] | None) -> list[float]:
    """Single calls after each other, each timed: what a search for the most a product reaches does."""
    found = []
    for _ in range(20):
        began = perf_counter()
        run()
        if synchronise is not None:
            synchronise()
        found.append(perf_counter() - began)
    return found


def _stream(machine: Machine) -> Work:
    import torch

    from capacity.measurement.native import triad_bytes_per_s

    if triad_bytes_per_s(2**20, 1) is None:
        raise NotSupportedError("no C compiler for STREAM")
    elements = STREAM_BYTES // 4
    target, left, right = (torch.ones(elements) for _ in range(3))
    clock = Clock(threads=machine.threads)
    facts: dict[str, Any] = {}

    def sample(effort: Effort) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        del effort
        own: list[Sample] = []
        theirs = 0.0
        for _ in range(ROUNDS):
            own += [clock.sample(lambda: torch.add(left, right, alpha=3.0, out=target)) for _ in range(4)]
            theirs = max(theirs, triad_bytes_per_s(float(STREAM_BYTES), 3, machine.threads) or 0.0)
        chosen, corrected = statistics.undisturbed(own)
        mine = sorted(statistics.seconds(one) for one in chosen)
        rate = 12.0 * elements / statistics.quantile(mine, 0.5 if corrected else 0.05)
        facts.update({"here_bytes_per_s": rate, "stream_bytes_per_s": theirs, "share_of_the_best": rate / theirs})
        return (), tuple(own)

    return Work(sampler=sample, moved_bytes=12.0 * elements, facts=lambda: facts)


FAMILIES = (Kernel("anchor", "the same rates by other rulers", _cases, _build, kind="anchor", time_s=120.0),)
