"""Layouts of many cases chosen at once: the search of `capacity estimate`, a candidate at a time over all rows still open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from capacity import ops
from capacity.estimators import layout
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.training_memory import training_memory
from capacity.estimators.training_run import given_plan, machine_of, price_run
from capacity.estimators.training_weights import weights_of
from capacity.record import Record, fields, replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capacity.estimators.case import Case
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

    Column = np.ndarray

# What a search decides, beside the policy of recomputation.
_NUMBERS = ("dp", "tp", "pp", "ep", "zero", "interleave", "micro_batch")


class Choice:
    """The layout of each row so far: its numbers, its policy, its step or, where nothing fits, its memory."""

    def __init__(self, rows: int, given: dict[str, Any]) -> None:
        self.given = given
        self.numbers = {name: np.ones(rows) for name in _NUMBERS}
        self.policy = np.full(rows, -1)
        self.policies: list[str] = []
        self.plans: dict[str, Plan] = {}
        self.step_s = np.full(rows, np.inf)
        self.least = np.full(rows, np.inf)
        self.priced = np.zeros(rows)
        self.open = np.ones(rows, dtype=bool)

    def take(self, rows: Column, plan: Plan) -> None:
        """Let rows have a layout."""
        for name, column in self.numbers.items():
            column[rows] = getattr(plan, name)
        if plan.recompute not in self.policies:
            self.policies.append(plan.recompute)
            self.plans[plan.recompute] = plan
        self.policy[rows] = self.policies.index(plan.recompute)

    @property
    def fits(self) -> Column:
        """Whether a row's layout fits."""
        fits: Column = np.isfinite(self.step_s)
        return fits

    def layouts(self) -> Iterator[tuple[Column, Plan]]:
        """Rows of one policy, and their layouts as columns."""
        kept = {name: value for name, value in self.given.items() if name not in (*_NUMBERS, "recompute")}
        for code, policy in enumerate(self.policies):
            rows = np.flatnonzero(self.policy == code)
            if not len(rows):  # a better one was found for all that had it
                continue
            numbers = {name: column[rows] for name, column in self.numbers.items()}
            yield rows, replace(self.plans[policy], **numbers, **rows_of(kept, rows, len(self.open)))


def choose(case: Case, workload: Workload, devices: Any, rows: int, shut: Column) -> Choice:
    """A layout for every row of a case of columns; a row without a legal one is left without a policy.

    shut: rows that have been refused already.
    """
    given = given_plan(case, devices)
    found = Choice(rows, given)
    found.open &= ~shut
    cluster = machine_of(case, case.cluster, workload, devices).cluster
    whole = (case, workload, devices, cluster, given)
    for candidate, legal in layout.candidates(case.model, workload, cluster, given, devices):
        here = np.flatnonzero(found.open & legal)
        if not len(here):
            continue
        (one, work, all_devices, inside, fixed), plan = rows_of(whole, here, rows), rows_of(candidate, here, rows)
        context = one.profile.context_bytes
        weights = weights_of(lower(one.model, Tokens()))
        held = training_memory(one.model, weights, work, plan, layout.rounds_of(work, plan), context)
        _thriftiest(found, here, plan, np.broadcast_to(sum(held.values()), here.shape))
        fitting = np.flatnonzero(np.broadcast_to(layout.fits(held, inside), here.shape))
        if not len(fitting):
            continue
        count, here = len(here), here[fitting]
        one, work, all_devices, inside, fixed, plan, weights = rows_of(
            (one, work, all_devices, inside, fixed, plan, weights), fitting, count
        )
        wide = layout.widen(one.model, weights, work, inside, plan, fixed, context)
        parts = price_run(one, one.model, work, one.cluster, all_devices, plan=wide).time
        step = np.broadcast_to(sum(parts.values()), here.shape)
        better = step < found.step_s[here] * layout.CLEARLY
        found.take(here[better], rows_of(wide, np.flatnonzero(better), len(here)))
        found.step_s[here[better]] = step[better]
        found.priced[here] += 1
        found.open[here] &= ~(layout.good_enough(parts, step) | (found.priced[here] == layout.MOST_PRICED))
        if not found.open.any():
            break
    return found


def _thriftiest(found: Choice, here: Column, plan: Plan, held: Column) -> None:
    """Keep the layouts that need least, for rows where none fits so far."""
    less = held < found.least[here]
    found.least[here[less]] = held[less]
    waiting = less & ~np.isfinite(found.step_s[here])
    found.take(here[waiting], rows_of(plan, np.flatnonzero(waiting), len(here)))


def rows_of(value: Any, rows: Column, count: int, known: dict[int, Any] | None = None) -> Any:
    """The same with some rows of each column in it, all the way down. count: how many rows columns have now."""
    known = {} if known is None else known
    if ops.is_column(value):
        if isinstance(value, np.ndarray) and value.shape != (count,):
            return value
        if id(value) not in known:
            known[id(value)] = value[rows]
        return known[id(value)]
    if isinstance(value, Record):
        changes = {}
        for name in fields(value):
            old = getattr(value, name)
            if isinstance(old, (Record, tuple, dict)) or ops.is_column(old):
                new = rows_of(old, rows, count, known)
                if new is not old:
                    changes[name] = new
        return replace(value, **changes) if changes else value
    if isinstance(value, tuple):
        members = tuple(rows_of(one, rows, count, known) for one in value)
        return members if any(new is not old for new, old in zip(members, value, strict=True)) else value
    if isinstance(value, dict):
        named = {key: rows_of(one, rows, count, known) for key, one in value.items()}
        return named if any(named[key] is not value[key] for key in value) else value
    return value
