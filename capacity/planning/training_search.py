"""Training layouts searched: every legal one priced, and what is asked of a choice worked out for those that fit."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from capacity.estimators import layout
from capacity.estimators.training_account import account
from capacity.estimators.training_run import Run, given_plan
from capacity.estimators.upkeep_case import read_upkeep
from capacity.planning.space import blocks_of, cuts_of
from capacity.planning.training_prices import CHUNK, TrainingPrices
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.planning.space import Block, Column
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# A layout this many times as slow as the fastest is never the best in money, energy or carbon either: the power that is drawn
# whatever is done costs more by then than any recomputation saves.
SLOWEST = 1.5
# So many layouts of a block that may be its fastest, and as many from all over it, are looked at first.
SAMPLE = 32
# Layouts this much too large are priced all the same, to say what more memory would bring.
NEARLY = 1.25
# What a device may keep in its host's memory, on its own: servers hold 1.3 (GB200) to 3.6 times (p4d) as much as their devices.
HOST_MEMORY = 2.0
# Where only the fastest is asked for: equal but for rounding.
FASTEST = 1.0 + 1e-9
# What a layout is chosen by, as the estimate names it, and in what unit.
QUANTITIES = {
    "step_time": "step_time_s",
    "run_time": "run_time_s",
    "cost": "cost_usd",
    "energy": "energy_j",
    "carbon": "carbon_g",
    "power": "power_w",
    "tokens_per_s_per_device": "tokens_per_s_per_device",
    "mfu": "mfu",
}


class Survey(Record):
    """Layouts of one case on one number of devices: those that fit, and how many there were.

    examined: of the legal ones; the kernels of the others alone take too long, whatever they hold.

    columns: block, row, step_time_s, memory_per_device_bytes and QUANTITIES, a row each. least: bytes of the thriftiest
    layout, and where it is. missed: the fastest of those that nearly fit: seconds, bytes, block, row.
    """

    case: Case
    workload: Workload
    devices: float
    prices: TrainingPrices
    blocks: tuple[Block, ...]
    columns: dict[str, Column]
    legal: int
    examined: int
    fit: int
    least: tuple[float, int, int]
    missed: tuple[float, float, int, int] | None
    seconds: float

    def __len__(self) -> int:
        return len(self.columns["row"])

    def plan(self, place: int) -> Plan:
        """The layout of a row."""
        return self.plan_at(int(self.columns["block"][place]), int(self.columns["row"][place]))

    def plan_at(self, block: int, row: int) -> Plan:
        """The layout of a row of a block."""
        found = self.prices.plan(self.blocks[block], np.array([row]))
        plain = {name: float(v[0]) if isinstance(v, np.ndarray) else v for name, v in found.__dict__.items()}
        return replace(found, **plain)

    def by_block(self, places: Any) -> Iterator[tuple[Block, Any, Any]]:
        """Rows of the survey, sorted by block: the block, which of `places`, and the rows of the block."""
        owner = self.columns["block"][places]
        for number in np.unique(owner):
            these = np.flatnonzero(owner == number)
            yield self.blocks[int(number)], these, self.columns["row"][places[these]]


def survey(
    case: Case,
    workload: Workload,
    devices: float,
    limit_bytes: float,
    fixed: dict[str, Any] | None = None,
    *,
    reach: float = SLOWEST,
    ceiling_s: float = np.inf,
) -> Survey:
    """Every legal layout of so many devices, priced.

    fixed: fields of a Plan that are not searched, where nobody gave them. reach: layouts that take longer than so many times
    the fastest, and ceiling_s: those whose step takes longer than this, are of no use to who asks, and left out.
    """
    started = perf_counter()
    if case.on_platform:
        # What keeps a run going costs every layout alike.
        case.kept["upkeep"] = read_upkeep(case, workload)
    given = {**(fixed or {}), **given_plan(case, devices)}
    cuts = cuts_of(case.model, workload, devices, given)
    prices = TrainingPrices(case, workload, devices, cuts)
    blocks = tuple(blocks_of(case.model, cuts, given, prices.stack))
    found: dict[str, list[Column]] = {name: [] for name in ("block", "row", "step", "memory")}
    examined = fit = 0
    # A few of each kind say how fast the fastest is at least: what cannot be near it need not be looked at.
    fastest = np.inf
    for block in blocks:
        fastest = _first(prices, block, limit_bytes, min(fastest, ceiling_s))
    nearly = limit_bytes * (NEARLY if reach > FASTEST else 1.0)
    least, missed = (np.inf, 0, 0), None
    for number, block in enumerate(blocks):
        for chunk in _chunks(np.flatnonzero(prices.floor(block) <= min(reach * fastest, ceiling_s))):
            examined += len(chunk)
            all_held = _held(prices, block, chunk)
            thriftiest = int(all_held.argmin())
            if all_held[thriftiest] < least[0]:
                least = (float(all_held[thriftiest]), number, int(chunk[thriftiest]))
            near = all_held <= nearly
            rows, held = chunk[near], all_held[near]
            if not len(rows):
                continue
            step = prices.step(block, rows)
            fits = held <= limit_bytes
            fit += int(fits.sum())
            if not fits.all():
                index = int(np.where(fits, np.inf, step).argmin())
                if missed is None or step[index] < missed[0]:
                    missed = (float(step[index]), float(held[index]), number, int(rows[index]))
            if fits.any():
                fastest = min(fastest, float(step[fits].min()))
            kept = fits & (step <= min(reach * fastest, ceiling_s))
            for name, column in (("row", rows), ("step", step), ("memory", held)):
                found[name].append(column[kept])
            found["block"].append(np.full(int(kept.sum()), number))
    columns = {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in found.items()}
    kept = columns["step"] <= min(reach * fastest, ceiling_s)
    columns = {name: column[kept] for name, column in columns.items()}
    columns["memory_per_device_bytes"] = columns.pop("memory")
    done = Survey(
        case,
        workload,
        devices,
        prices,
        blocks,
        columns,
        sum(map(len, blocks)),
        examined,
        fit,
        least,
        missed,
        perf_counter() - started,
    )
    values = _values(done, np.arange(len(done)))
    return replace(done, columns=columns | values, seconds=perf_counter() - started)


def _first(prices: TrainingPrices, block: Block, limit_bytes: float, fastest: float) -> float:
    """Seconds of the fastest of a few layouts of a block that fit, those that may be fastest; or what was faster already."""
    floor = prices.floor(block)
    rows = np.arange(len(floor)) if len(floor) <= SAMPLE else np.argpartition(floor, SAMPLE)[:SAMPLE]
    rows = np.concatenate([rows, np.arange(0, len(floor), max(len(floor) // SAMPLE, 1))])
    rows = np.unique(rows[floor[rows] < fastest])
    rows = rows[_held(prices, block, rows) <= limit_bytes] if len(rows) else rows
    return min(fastest, float(prices.step(block, rows).min())) if len(rows) else fastest


def _held(prices: TrainingPrices, block: Block, rows: Any) -> Column:
    """Bytes that each layout takes of its fullest device; infinite where the host has no room for what is put there."""
    held = prices.memory(block, rows)
    kind = block.kind
    if not kind.offload or kind.offload_to != "cpu" or "offload" in prices.case.request:
        return held
    aside = prices.memory(replace(block, kind=replace(kind, offload=())), rows) - held
    return np.where(aside <= HOST_MEMORY * prices.machine.cluster.device.memory_bytes, held, np.inf)


def _chunks(rows: Any) -> Iterator[Any]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def _values(found: Survey, places: Any) -> dict[str, Column]:
    """QUANTITIES of these rows, as the estimate works them out."""
    values: dict[str, Column] = {}
    prices = found.prices
    for block, these, rows in found.by_block(places):
        for part in _chunks(np.arange(len(these))):
            plan = prices.plan(block, rows[part])
            step = found.columns["step"][places[these[part]]]
            run = Run(
                found.case.model,
                prices.table(plan),
                prices.weights,
                found.workload,
                plan,
                prices.machine.cluster,
                True,
                {"all": found.columns["memory_per_device_bytes"][places[these[part]]]},
                {"all": step},
                prices.cuts.rounds[block.cut[rows[part]]],
                **prices.beside(block, rows[part], step),
            )
            for name, value in account(found.case, run, alone=True)({}).items():
                if name in QUANTITIES:
                    column = values.setdefault(QUANTITIES[name], np.zeros(len(places)))
                    column[these[part]] = value.mid
    return values


def limit_of(case: Case, most_bytes: float | None) -> float:
    """Bytes that a layout may take of a device."""
    usable = layout.USABLE_SHARE * case.cluster.device.open_bytes
    return float(usable if most_bytes is None else min(usable, most_bytes))
