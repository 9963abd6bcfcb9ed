"""`capacity bench`: what this machine really delivers."""

from __future__ import annotations

from capacity.cli.options import Command, Option, one_of, typed, whole
from capacity.cli.terminal import style, write
from capacity.errors import InputError
from capacity.quantities import argument
from capacity.rendering import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.measurement.case import Case, Machine
    from capacity.measurement.statistics import Summary
    from capacity.measurement.suite import Plan, Progress
    from capacity.rendering.style import Style
    from capacity.spec.measurement import Measurement

DEFAULT_FILE = "capacity-bench.jsonl"
CHECK = "check"
# Columns the figures of a case take beside its name, and how many cases `check` shows for one remedy.
FIGURES_WIDTH = 51
SHOWN = 5

COMMAND = Command(
    "bench",
    usage="[check] [NAME ...] [options]",
    description="Measure this machine: kernels, training steps and compressed inference, each\n"
    "case in a process of its own beside a control kernel. A run that was stopped, or\n"
    "killed, goes on when started again on the same file. Needs the `bench` extra.",
    examples=(
        "capacity bench --quick",
        "capacity bench --to server.jsonl --rounds 3",
        "capacity bench gemm 'attention/*bf16*'",
        "capacity bench training --threads 2",
        "capacity bench storage security preparation",
        "capacity bench check --to server.jsonl",
        "capacity bench --list",
    ),
    words=("NAME", "cases by kernel, kind or pattern, or `check`: why results are unstable, and what to do"),
    groups=(
        ("what is measured", (
            Option("--quick", help="a minute: a few cases of each kernel"),
            Option("--list", help="show the cases and measure nothing"),
            Option("--device", metavar="NAME", read=one_of("device", ("cpu", "cuda")), help="cpu or cuda; cuda where torch has one"),
            Option("--threads", metavar="N", read=whole(1, 4096), help="threads of each case; all cores if they are idle, else 1"),
            Option("--matmul-precision", metavar="NAME", read=one_of("precision", ("highest", "high", "medium")), help="torch's setting for products in fp32: highest"),
            Option("--allocator", metavar="NAME", read=one_of("allocator", ("pinned", "default")), help="pinned: blocks to 32 MiB are kept, larger ones fresh; or default"),
        )),
        ("how long", (
            Option("--rounds", metavar="N", read=whole(1, 100), help="visits to each case, in another order each: 2"),
            Option("--budget", metavar="TIME", read=argument("s", positive=True), help="time sampled in a visit: 400ms"),
            Option("--time", metavar="TIME", read=argument("s", positive=True), help="begin no visit after this: 20min"),
            Option("--memory", metavar="SIZE", read=argument("byte", positive=True), help="most a case may take: 8GiB; what is free"),
        )),
        ("the answer", (
            Option("--to", metavar="FILE", read=typed(str), help=f"where measurements are kept: {DEFAULT_FILE}"),
            Option("--plain", help="no colour, ASCII only"),
            Option("--json", help="a summary of each case as JSON (schema 1)"),
        )),
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Measure, list or check."""
    words = list(options["words"])
    path = options["to"] or DEFAULT_FILE
    if words[:1] == [CHECK]:
        if len(words) > 1:
            raise InputError(f"`capacity bench check` takes no names, {words[1][:40]!r} given: it reads --to FILE")
        _check(path, options)
        return
    try:
        import psutil  # noqa: F401 - the suite needs it, and says so before anything is measured

        machine = _machine(options)
    except ModuleNotFoundError as error:
        raise InputError(f'measuring needs {error.name}: pip install "model-capacity[bench]"') from None
    from capacity.measurement.case import FULL, QUICK
    from capacity.measurement.registry import cases

    chosen = cases(QUICK if options["quick"] else FULL, machine, words)
    if options["list"]:
        write("".join(f"{case.name}\n" for case in chosen))
        return
    _measure(chosen, _plan(options, machine), path, options)


def _machine(options: dict[str, Any]) -> Machine:
    """The device and threads that were asked for, or that suit the machine as it is now."""
    from importlib.util import find_spec

    from capacity.measurement import environment
    from capacity.measurement.case import Machine

    if find_spec("torch") is None:
        raise ModuleNotFoundError(name="torch")
    device = options["device"] or ("cuda" if _has_cuda() else "cpu")
    cores = int(environment.quota_cores() or environment.usable_cores())
    threads = options["threads"] or cores
    if options["threads"] is None and device == "cpu" and cores > 1 and not options["list"]:
        from capacity.measurement.check import MOST_OTHERS

        busy = environment.others_share() or 0.0
        if busy > MOST_OTHERS:
            threads = 1
            _say(
                f"others use {busy:.0%} of the cores: measuring with 1 thread, which they disturb least (--threads {cores} for all)"
            )
    cache, memory = environment.last_cache_bytes(), environment.available_bytes()
    if device == "cuda":
        cache, memory = _gpu_sizes(cache, memory)
    return Machine(device=device, threads=threads, cache_bytes=cache, memory_bytes=memory)


def _gpu_sizes(cache: float, memory: float) -> tuple[float, float]:
    """Last-level cache and free memory of the GPU; what was given where torch sees none, which cases then say."""
    import torch

    if not torch.cuda.is_available():
        return cache, memory
    properties = torch.cuda.get_device_properties(0)
    return float(getattr(properties, "L2_cache_size", 0) or cache), float(torch.cuda.mem_get_info(0)[0])


def _has_cuda() -> bool:
    import os

    if not os.path.exists("/dev/nvidiactl"):  # asking torch would take two seconds
        return False
    import torch

    return bool(torch.cuda.is_available())


def _plan(options: dict[str, Any], machine: Machine) -> Plan:
    from capacity.measurement.sampling import Effort
    from capacity.measurement.suite import Plan
    from capacity.measurement.worker import Settings

    quick = options["quick"]
    effort = Effort(budget_s=options["budget"] or (0.3 if quick else 0.4))
    settings = Settings(
        threads=machine.threads,
        matmul_precision=options["matmul_precision"] or "highest",
        allocator=options["allocator"] or "pinned",
    )
    return Plan(
        machine=machine,
        settings=settings,
        effort=effort,
        rounds=options["rounds"] or (1 if quick else 2),
        time_s=options["time"],
        memory_bytes=options["memory"],
        power=_power() if machine.device == "cpu" else None,
    )


def _power() -> dict[str, Any] | None:
    """What servers with this processor draw, for cases whose energy no counter says."""
    from capacity.catalogue.power import core_power
    from capacity.measurement import environment
    from capacity.record import asdict

    known = core_power(environment.cpu_model(), *environment.cpu_id())
    return None if known is None else asdict(known)


def _measure(chosen: list[Case], plan: Plan, path: str, options: dict[str, Any]) -> None:
    from capacity.measurement.store import Store
    from capacity.measurement.suite import outstanding, run_suite

    names = {case.name for case in chosen}
    with Store(path) as store:
        missing = len(outstanding(chosen, plan, store))
        if missing < len(chosen) * plan.rounds:
            _say(f"{path} holds {len(chosen) * plan.rounds - missing} of {len(chosen) * plan.rounds} visits; going on")
        run_suite(chosen, plan, store, _Bar())
        measured = [one for one in store.measurements if one.case in names]
    _show(measured, options)
    _say(f"kept in {path}; `capacity bench check --to {path}` says which results to trust")


def _show(measured: list[Measurement], options: dict[str, Any]) -> None:
    from capacity.measurement.check import by_case, summaries

    known = summaries(measured)
    if options["json"]:
        from capacity.record import asdict
        from capacity.rendering.record import json

        cases = [
            {
                "case": name,
                "status": visits[-1].status,
                "why": visits[-1].why,
                "flop": visits[-1].flop,
                "moved_bytes": visits[-1].moved_bytes,
                **{name: getattr(visits[-1], name) for name in ("energy_j", "energy_interval_j", "energy_source")},
                **(asdict(known[name]) if name in known else {}),
            }
            for name, visits in by_case(measured).items()
        ]
        write(json({"schema": 1, "cases": cases}))
        return
    chosen = style(plain=options["plain"])
    header = [["case", "median", "95 %", "GFLOP/s", "GB/s", "waited", "slower"]]
    rows = []
    for name, visits in sorted(by_case(measured).items()):
        summary = known.get(name)
        cells = _cells(visits[-1], summary) if summary else [visits[-1].status, "", "", "", "", ""]
        # Names say most: the figures stand beside them and the end of a name is cut.
        rows.append([layout.clip(name, max(chosen.width - FIGURES_WIDTH, 20), chosen), *cells])
    write("\n".join(layout.table(header, [[chosen.text(cell) for cell in row] for row in rows], chosen)) + "\n")
    overheads = sorted(visit.overhead_s for visit in measured if visit.overhead_s is not None)
    if overheads:
        _say(f"reading the clock took {_time(overheads[len(overheads) // 2])} a sample")


def _cells(visit: Measurement, summary: Summary) -> list[str]:
    def rate(amount: float | None) -> str:
        return "" if not amount else f"{amount / summary.seconds / 1e9:.3g}"

    half = (summary.high_s - summary.low_s) / 2.0 / summary.seconds
    return [
        _time(summary.seconds),
        f"±{half:.0%}",
        rate(visit.flop),
        rate(visit.moved_bytes),
        f"{summary.disturbed:.0%}",
        f"{summary.slowdown:.2f}",
    ]


def _time(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _check(path: str, options: dict[str, Any]) -> None:
    from capacity.measurement.check import by_case, check
    from capacity.measurement.store import read

    environments, measured = read(path)
    findings = check(environments, measured)
    if options["json"]:
        from capacity.record import asdict
        from capacity.rendering.record import json

        write(json({"schema": 1, "findings": asdict(findings)}))
        return
    chosen = style(plain=options["plain"])
    faulty = {finding.case for finding in findings if finding.case}
    total = len(by_case(measured))
    lines = [f"{total - len(faulty)} of {total} cases are stable"]
    for remedy in dict.fromkeys(finding.remedy for finding in findings):
        group = [finding for finding in findings if finding.remedy == remedy]
        lines += ["", *_wrapped(chosen, f"→ {remedy}", "")]
        for finding in group[:SHOWN]:
            lines += _wrapped(chosen, f"{finding.case or 'the whole run'}: {finding.why}", "  ")
        if len(group) > SHOWN:
            lines.append(f"  and {len(group) - SHOWN} more; --json shows all")
    write("\n".join(lines) + "\n")


def _wrapped(chosen: Style, text: str, margin: str) -> list[str]:
    from textwrap import wrap

    lines = wrap(text, chosen.width, initial_indent=margin, subsequent_indent=margin + "  ", break_on_hyphens=False)
    return [chosen.text(line) for line in lines]


class _Bar:
    """Where the suite stands, on stderr: one line that is rewritten on a terminal, one in a while elsewhere."""

    def __init__(self) -> None:
        import sys

        self._stream = sys.stderr
        self._terminal = self._stream is not None and self._stream.isatty()
        self._shown = -1

    def __call__(self, progress: Progress) -> None:
        """Show one state."""
        if self._stream is None:
            return
        share = progress.done / max(progress.total, 1)
        left = "" if progress.left_s is None else f", {_minutes(progress.left_s)} left"
        text = f"{progress.done}/{progress.total}{left}  {progress.case}"
        if self._terminal:
            filled = round(20 * share)
            self._stream.write(f"\r\x1b[2K{'█' * filled}{'░' * (20 - filled)} {text}"[:140])
            if progress.status == "done":
                self._stream.write("\n")
            self._stream.flush()
        elif int(share * 10) > self._shown:
            self._shown = int(share * 10)
            self._stream.write(text + "\n")


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90.0 else f"{seconds / 60.0:.0f} min"


def _say(text: str) -> None:
    import sys

    if sys.stderr is not None:
        sys.stderr.write(f"capacity: {text}\n")
