"""A whole sweep: blocks of cases priced on all cores or by an engine, kept as they come, summed up in a line."""

from __future__ import annotations

import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import pandas as pd

from capacity.errors import CapacityError, UnknownNameError
from capacity.record import Record
from capacity.sweeps.cases import Grid, Listed, axis, described, read_cases
from capacity.sweeps.engines import engine_of
from capacity.sweeps.frame import ERROR, completed, estimate_frame
from capacity.sweeps.pareto import front, objectives
from capacity.sweeps.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from capacity.sweeps.cases import Cases

    Progress = Callable[[int, int, float], None]

# Rows of a block: tens of megabytes of results, a fraction of a second of work.
BLOCK_ROWS = 65536
# Rows priced beforehand to see which quantities there are.
PROBED_ROWS = 24
# Rows of an answer that are shown where no front was asked for.
BEST_ROWS = 10


class Task(Record):
    """What is done to every block. shared: options of all rows; wanted: quantities (None: all).

    goals: words of the front's objectives ("" for none); store: where the rows go (None: nowhere).
    """

    shared: dict[str, Any]
    intervals: bool = False
    wanted: tuple[str, ...] | None = None
    goals: str = ""
    store: Store | None = None


class Part(Record):
    """A block that was priced: its number, rows, rows with an error or that do not fit, and those worth showing.

    names: of its columns; singly: rows that could not be columns.
    """

    number: int
    rows: int
    errors: int
    unfit: int
    singly: int
    shown: pd.DataFrame
    names: tuple[str, ...]


class Sweep(Record):
    """What a sweep found. shown: the Pareto front, or the best rows; lacking: quantities asked for that no row has."""

    rows: int
    errors: int
    unfit: int
    singly: int
    seconds: float
    shown: pd.DataFrame
    goals: tuple[str, ...]
    output: str | None = None
    resumed: int = 0
    lacking: tuple[str, ...] = ()


def price(number: int, block: pd.DataFrame, task: Task) -> Part:
    """Price a block and keep its rows; what every engine runs."""
    frame = estimate_frame(block, intervals=task.intervals, **task.shared)
    singly = int(frame.attrs["priced singly"])
    if task.wanted is not None:
        wanted = {*task.wanted, "fits"}
        kept = [name for name in frame.columns if "." not in name or wanted & {name, name.partition(".")[2]}]
        whole, frame = frame, frame[kept]
    else:
        whole = frame
    if task.store is not None:
        task.store.write(number, frame)
    return summed(number, whole, task, singly)


def summed(number: int, frame: pd.DataFrame, task: Task, singly: int = 0) -> Part:
    """What is told of a block that has been priced."""
    fits = [name for name in frame.columns if name.endswith(".fits")]
    unfit = (frame[fits] == 0.0).any(axis=1) if fits else pd.Series(data=False, index=frame.index)
    return Part(
        number,
        len(frame),
        int(frame[ERROR].notna().sum()),
        int(unfit.sum()),
        singly,
        _shown(frame, task.goals) if fits else frame.iloc[:0],
        tuple(frame.columns),
    )


def _shown(frame: pd.DataFrame, words: str) -> pd.DataFrame:
    """Rows worth showing: the front, or the best ones of a usual objective."""
    if words:
        return front(frame, objectives(words, frame.columns))
    goal = usual_goal(frame)
    if goal is None:
        return frame.iloc[:0]
    fitting = frame[frame[f"{goal.partition('.')[0]}.fits"] == 1.0]
    return fitting.nsmallest(BEST_ROWS, goal)


def usual_goal(frame: pd.DataFrame) -> str | None:
    """What rows are ranked by where nobody says."""
    for ending in ("run_time", "cost_per_million_tokens", "tpot", "latency"):
        for name in frame.columns:
            if name.partition(".")[2] == ending:
                return str(name)
    return None


def sweep(
    cases: Cases | pd.DataFrame | Mapping[str, Iterable[Any]] | str,
    shared: Mapping[str, Any] | None = None,
    *,
    output: str | None = None,
    intervals: bool = False,
    columns: Iterable[str] | None = None,
    pareto: str = "",
    jobs: int = 1,
    engine: str = "local",
    address: str | None = None,
    resume: bool = False,
    block_rows: int = BLOCK_ROWS,
    progress: Progress | None = None,
) -> Sweep:
    """Price all cases, keep every row where an output is given, and say what was found.

    cases: a frame, a column an option of `capacity.estimate`; a mapping, whose values' combinations are the cases; or the path
    of a file (`capacity.sweeps.cases.read_cases`). shared: options of all cases.
    output: a .parquet or .csv file, or a folder for a data set of Parquet files; resume: go on with rows that are there.
    columns: the quantities to keep, by full name or without their section; a misspelt one is refused before the first block.
    pareto: objectives of the front to show, such as "time,cost". jobs: processes of the local engine; engine: "local", "dask"
    or "spark", at an address or on this machine. progress: told rows done, rows in all, and seconds so far.
    Memory depends on block_rows and jobs, not on how many cases there are. Raises CapacityError.
    """
    begun = time.monotonic()
    cases, shared = _read(cases, shared or {})
    wanted = None if columns is None else tuple(columns)
    _check(wanted or (), cases, shared, intervals=intervals)
    store = None if output is None else Store.at(output)
    task = Task(dict(shared), intervals, wanted, pareto, store)
    there: set[int] = set()
    if store is not None:
        told = described(cases, shared) | {"block_rows": block_rows, "intervals": intervals, "columns": wanted}
        store.begin(told, resume=resume)
        there = store.done()
    whole = _Whole(task)
    for number in sorted(there):
        whole.add(summed(number, store.read(number), task))  # type: ignore[union-attr]
    resumed = whole.rows

    def left() -> Iterator[tuple[int, pd.DataFrame]]:
        for number, block in enumerate(cases.blocks(block_rows)):
            if number not in there:
                yield number, block

    for part in engine_of(engine, jobs, address)(left(), task):
        whole.add(part)
        there.add(part.number)
        if progress is not None:
            progress(whole.rows, cases.rows, time.monotonic() - begun)
    if store is not None:
        store.finish(there)
    return whole.told(time.monotonic() - begun, output, resumed)


def _check(wanted: tuple[str, ...], cases: Cases, shared: Mapping[str, Any], *, intervals: bool) -> None:
    """Refuse a quantity that a few rows from all over the sweep do not have: a slip is told before hours of work, not after.

    A part of a breakdown, which other rows may well have, is refused only where one that is there is spelt nearly so.
    """
    if not wanted:
        return
    probe = estimate_frame(cases.sample(PROBED_ROWS), **shared)
    if probe[ERROR].notna().all():
        return
    full = [name for name in probe.columns if "." in name]
    ends = ("", "_low", "_high") if intervals else ("",)
    known = {f"{name}{end}" for full_name in full for name in (full_name, full_name.partition(".")[2]) for end in ends}
    known |= set(probe.columns)
    for name in wanted:
        part = "." in name.partition(".")[2] or name.partition(".")[0] in ("time", "memory")
        if name not in known and not (part and not get_close_matches(name, known, n=1, cutoff=0.8)):
            raise UnknownNameError(
                "quantity in --columns", name, sorted(known), "--json of `capacity estimate` shows the names"
            )


def _read(cases: Any, shared: Mapping[str, Any]) -> tuple[Cases, dict[str, Any]]:
    """Whatever cases were given as, and what they share."""
    if isinstance(cases, str):
        cases, told = read_cases(cases, ())
        return cases, told | dict(shared)
    if isinstance(cases, pd.DataFrame):
        return Listed(cases), dict(shared)
    if hasattr(cases, "items"):
        return Grid({name: axis(name, values) for name, values in cases.items()}), dict(shared)
    return cases, dict(shared)


class _Whole:
    """What all blocks come to, as they come."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rows = self.errors = self.unfit = self.singly = 0
        self.shown: pd.DataFrame | None = None
        self.names: dict[str, None] = {}

    def add(self, part: Part) -> None:
        """Count a block in."""
        self.rows += part.rows
        self.errors += part.errors
        self.unfit += part.unfit
        self.singly += part.singly
        self.names |= dict.fromkeys(part.names)
        if part.shown.empty:
            return
        known = [part.shown] if self.shown is None else [self.shown, part.shown]
        names = list(dict.fromkeys(name for frame in known for name in frame.columns))
        merged = pd.concat([_plain(completed(frame, names)[names]) for frame in known], ignore_index=True)
        self.shown = _shown(merged, self.task.goals)

    def told(self, seconds: float, output: str | None, resumed: int) -> Sweep:
        """The sweep as a whole."""
        if not self.rows:
            raise CapacityError("no cases: the file has no rows")
        shown = pd.DataFrame() if self.shown is None else self.shown
        goals: tuple[str, ...] = ()
        if len(shown):
            usual = usual_goal(shown)
            goals = tuple(objectives(self.task.goals, shown.columns)) if self.task.goals else (usual,) if usual else ()
        elif self.task.goals:
            objectives(self.task.goals, self.names)
        known = {*self.names, *(name.partition(".")[2] for name in self.names)}
        lacking = tuple(name for name in self.task.wanted or () if name not in known)
        return Sweep(self.rows, self.errors, self.unfit, self.singly, seconds, shown, goals, output, resumed, lacking)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose words are words: categories of two blocks need not be the same."""
    words = [name for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)]
    return frame.astype(dict.fromkeys(words, object)) if words else frame
