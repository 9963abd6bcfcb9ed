"""What would turn a choice: each uncertain input at the ends of its interval, and which layout is then best."""

from __future__ import annotations

import numpy as np

from capacity.estimators.composed import composed_interval
from capacity.estimators.training_terms import Terms
from capacity.record import Record, fields, replace
from capacity.spec.choice import Turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.stacks import Stack
    from capacity.planning.space import Column
    from capacity.planning.training import Field
    from capacity.planning.training_search import Survey

KERNELS = "90 % of published kernel measurements lie within, the middle of 16 devices and formats (accuracy-kernels.md)"
STACKS = "the least and the most of the fitted software stacks (accuracy-training.md)"


class Input(Record):
    """An uncertain input: the terms of a step it scales, or the fields of the stack, and its interval as factors."""

    name: str
    low: float
    high: float
    source: str
    terms: tuple[str, ...] = ()
    stack: tuple[str, ...] = ()

    def changed(self, terms: Terms, stack: Stack, factor: float) -> tuple[Terms, Stack]:
        """Terms and stack with this input at a factor of its mid value."""
        return (
            replace(terms, **{name: getattr(terms, name) * factor for name in self.terms}),
            replace(stack, **{name: getattr(stack, name) * factor for name in self.stack}),
        )


INPUTS = (
    Input("time of matrix products", 0.81, 1.18, KERNELS, ("gemm_forward", "gemm_backward", "head")),
    Input("time of attention", 0.79, 1.29, KERNELS, ("attention_forward", "attention_backward")),
    Input("time of expert products", 0.75, 1.55, KERNELS, ("expert_forward", "expert_backward")),
    Input("time of collectives", 0.89, 1.18, KERNELS, ("tensor", "regather", "head_tensor", "routing", "context", "gather", "reduce", "hop")),
    Input("element-wise work", 0.47, 1.6, STACKS, stack=("elementwise",)),
    Input("exposed tensor-parallel traffic", 0.7, 2.3, STACKS, stack=("exposed_forward", "exposed_backward")),
    Input("exposed hand-over of stages", 0.7, 2.8, STACKS, stack=("exposed_hops",)),
    Input("hidden gradient reduction", 0.35, 1.2, STACKS, stack=("reduce_overlap",)),
    Input("launching host", 0.68, 1.35, STACKS, stack=("host",)),
    Input("waiting for the slowest of many nodes", 0.0, 2.8, STACKS, stack=("straggler",)),
)  # fmt: skip
# Layouts that are this much worse than the best are not looked at: no single input is as uncertain as that for one alone.
REACH = 0.35
_MOST = 8000


def turns_of(
    field: Field, best: int, score: Column, within: Column, limit_bytes: float
) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """Inputs that change the choice, and the names of those that do not.

    Only layouts on the devices that were chosen are weighed: what moves a step there moves all.
    """
    found, row = field.at(best)
    start = int(np.searchsorted(field.owner, int(field.owner[best])))
    own = score[start : start + len(found)]
    near = _weighed(found, own, row)
    turns: list[Turn] = []
    steady: list[str] = []
    step = found.columns["step_time_s"]
    ratio = own[near] / step[near]  # the objective follows the step, whatever it is
    prices = found.prices
    terms = _together([(these, prices.terms(block, rows)) for block, these, rows in found.by_block(near)], len(near))
    taught = np.zeros(len(near))
    for block, these, rows in found.by_block(near):
        taught[these] = prices.guided(block, rows)
    here = int(np.flatnonzero(near == row)[0])
    for one in INPUTS:
        moved = False
        for factor in (one.low, one.high):
            seconds = sum(prices.parts(*one.changed(terms, prices.stack, factor)).values()) + taught
            moved |= _note(turns, one.name, factor, one.source, field, start + near, seconds * ratio, here)
        if not moved:
            steady.append(one.name)
    spread = composed_interval("memory", "training_memory", found.case.profile)
    memory = found.columns["memory_per_device_bytes"]
    moved = False
    if memory[row] * spread.high > limit_bytes:
        fits = np.flatnonzero((memory * spread.high <= limit_bytes) & within[start : start + len(found)])
        if len(fits):
            place = int(fits[own[fits].argmin()])
            loss = float(abs(own[place] / own[row] - 1.0))
            turns.append(Turn("memory", spread.high, spread.source, field.option(start + place), -loss))
            moved = True
    if not moved:
        steady.append("memory")
    return tuple(sorted(turns, key=lambda turn: -abs(turn.gain))), tuple(steady)


def _together(pieces: list[tuple[Any, Terms]], rows: int) -> Terms:
    """Terms of several blocks as columns over all their rows."""
    columns: dict[str, Any] = {name: np.zeros(rows) for name in fields(Terms)}
    for these, terms in pieces:
        for name, column in columns.items():
            column[these] = getattr(terms, name)
    return Terms(**columns)


def _weighed(found: Survey, score: Column, best: int) -> Any:
    """Rows of a survey that an input may bring forward: of each kind the best with each cut, the nearest first."""
    near = np.flatnonzero(score <= score[best] + abs(score[best]) * REACH)
    near = near[np.argsort(score[near], kind="stable")]
    kept = []
    for block, these, rows in found.by_block(near):
        _, first = np.unique(block.cut[rows], return_index=True)
        kept.append(these[first])
    return near[np.sort(np.concatenate(kept))[:_MOST]]


def _note(
    turns: list[Turn], name: str, factor: float, source: str, field: Field, places: Any, scores: Column, here: int
) -> bool:
    """Whether another layout is better there by more than a hundredth."""
    best = int(scores.argmin())
    gain = float(abs(scores[best] / scores[here] - 1.0))
    if gain < NOTABLE:
        return False
    turns.append(Turn(name, factor, source, field.option(int(places[best])), gain))
    return True


# A change of choice that is worth less is no change.
NOTABLE = 0.01
