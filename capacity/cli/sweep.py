"""`capacity sweep`: a grid, a list or a file of cases, each with every quantity."""

from __future__ import annotations

import os
import sys

from capacity.cli.estimate import OF_NETWORKS, QUESTION
from capacity.cli.options import Command, Option, one_of, whole
from capacity.cli.terminal import style, write
from capacity.errors import CapacityError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ENGINES = ("local", "dask", "spark")

# A file, a process and a cluster take over these words; the engine that serves is called by its whole name.
_RENAMED = {
    "--engine": Option("--serving-engine", dest="engine", metavar="NAME", help="vllm, sglang, tensorrt-llm ...")
}
_LEFT_OUT = ("anchor",)


def _shared(options: tuple[Option, ...]) -> tuple[Option, ...]:
    return tuple(_RENAMED.get(one.flags[-1], one) for one in options if one.dest not in _LEFT_OUT)


COMMAND = Command(
    "sweep",
    usage="[FILE] [--sweep NAME=VALUES ...] [options]",
    description="Thousands to millions of cases, each with every quantity of an estimate: all\n"
    "combinations of the values of --sweep, or the rows of a .toml, .csv or\n"
    ".parquet file. Options of an estimate that are given hold for all cases.",
    examples=(
        "capacity sweep --mode train --devices 64 --sweep params=1e9:1e12:log20",
        "capacity sweep --model llama-3.1-70b --mode train --devices 512 \\",
        "    --sweep tp=1:8:x2 --sweep pp=1:16:x2 --sweep zero=1,3 --pareto time,memory",
        "capacity sweep cases.csv --output answers.parquet",
        "capacity sweep grid.toml --output answers --jobs 16 --resume",
        "capacity sweep grid.toml --output answers --engine dask \\",
        "    --address tcp://head:8786",
    ),
    words=("FILE", "cases: a row each (.csv, .parquet), or [shared] and [sweep] tables (.toml)"),
    groups=(
        ("the cases", (
            Option("--sweep", metavar="NAME=VALUES", many=True, help="tp=1,2,4,8, params=1e9:1e12:log20, seq_len=2k:64k:x2; may be repeated"),
        )),
        ("the answer", (
            Option("--output", metavar="PATH", help="a .parquet or .csv file, or a folder: a data set of Parquet files"),
            Option("--columns", metavar="NAMES", help="only these quantities: step_time,cost"),
            Option("--intervals", help="both ends of each quantity's interval too"),
            Option("--pareto", metavar="NAMES", help="show the cases that none beats in all of: time,cost,memory ..."),
            Option("--resume", help="go on with the rows that are in --output already"),
            Option("--quiet", help="nothing on stderr while it runs"),
            Option("--plain", help="no colour, ASCII only"),
            Option("--json", help="what was found as JSON: counts and the rows shown"),
        )),
        ("where it runs", (
            Option("--jobs", metavar="N", read=whole(1, 4096), help="processes on this machine; as many as it has cores"),
            Option("--engine", dest="runner", metavar="NAME", read=one_of("engine", _ENGINES), help="local, dask or spark"),
            Option("--address", metavar="URL", help="of a cluster that is there: tcp://head:8786, spark://head:7077"),
            Option("--block-rows", metavar="N", read=whole(1, 10**8), help="rows priced, kept and resumed together: 65536"),
        )),
        *((title, _shared(tuple(options))) for title, options in QUESTION if title != OF_NETWORKS),
    ),
)  # fmt: skip
_SWEPT = {option.dest for _, group in COMMAND.groups[3:] for option in group}


def run(options: dict[str, Any]) -> None:
    """Price all cases, keep them, and show the best."""
    if len(options["words"]) > 1:
        raise InputError(f"one file of cases at a time; {len(options['words'])} given")
    try:
        from capacity.sweeps.cases import read_cases
        from capacity.sweeps.run import BLOCK_ROWS, sweep
    except ImportError as error:
        raise CapacityError(f"a sweep needs {error.name}: pip install 'model-capacity[sweep]'") from None
    cases, shared = read_cases(next(iter(options["words"]), None), options["sweep"] or ())
    shared |= {name: value for name, value in options.items() if name in _SWEPT and value not in (None, False)}
    if "catalogue" in shared:
        shared["catalogue"] = tuple(shared["catalogue"])
    names = options["columns"]
    progress = None if options["quiet"] else Progress()
    found = sweep(
        cases,
        shared,
        output=options["output"],
        intervals=options["intervals"],
        columns=None if names is None else [name.strip() for name in names.split(",")],
        pareto=options["pareto"] or "",
        jobs=options["jobs"] or _cores(cases.rows, options["block_rows"] or BLOCK_ROWS),
        engine=options["runner"] or "local",
        address=options["address"],
        resume=options["resume"],
        block_rows=options["block_rows"] or BLOCK_ROWS,
        progress=progress,
    )
    if progress is not None:
        progress.end()
    from capacity.rendering import swept

    if options["json"]:
        from capacity.rendering.record import json

        write(json(swept.record(found)))
    else:
        write(swept.screen(found, style(plain=options["plain"])))


def _cores(rows: int, block_rows: int) -> int:
    """Processes worth starting: a core each, but no more than there are blocks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, rows // block_rows), 1)


class Progress:
    """Rows done, pace and time left, on one line of a terminal, or every few seconds on a line of its own elsewhere."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._alone = bool(self._stream and self._stream.isatty())
        self._next = 0.0 if self._alone else 10.0
        self._width = 0

    def __call__(self, done: int, rows: int, seconds: float) -> None:
        """Say how far it is."""
        if seconds < self._next or self._stream is None:
            return
        self._next = seconds + (0.5 if self._alone else 10.0)
        pace = done / max(seconds, 1e-9)
        left = max(rows - done, 0) / pace
        text = f"{done:,} of {rows:,} cases · {pace:,.0f} a second · {_duration(left)} left"
        self._width = max(self._width, len(text))
        self._stream.write(f"\r{text:<{self._width}}" if self._alone else text + "\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave a clean line."""
        if self._alone and self._width and self._stream is not None:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()


def _duration(seconds: float) -> str:
    from capacity.quantities import format

    return format(max(round(seconds), 1), "s")
