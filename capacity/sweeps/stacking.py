"""Many records of one structure become one record whose numbers are columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.record import Record, fields, replace
from capacity.spec.model import Attention, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Take = Callable[[np.ndarray], Any]
    Template = Callable[[Take], Any]

# Numbers of a model that formulas take as they are; any other is structure, and equal in all models of a stack.
STACKED = frozenset(
    {
        "active", "cache_elements", "count", "experts", "heads", "hidden", "in_features", "key_size", "kv_heads",
        "max_positions", "out_features", "rotary", "rotary_size", "rows", "shared_width", "value_size", "vector_params",
        "vocab_size", "width", "window",
    }
)  # fmt: skip
# What a model is called, and why.
LABELS = frozenset({"architecture", "inferred", "name", "notes", "source"})


def signature(value: Any, *, stacked: bool = False) -> Any:
    """What models must share to be priced as columns of one: all but their sizes and their names.

    Nought, one and infinity are structure too: a layer that has none of something has no op of it.
    """
    if isinstance(value, Record):
        skipped = LABELS if isinstance(value, ModelSpec) else ()
        inner = tuple(
            signature(getattr(value, name), stacked=name in STACKED) for name in fields(value) if name not in skipped
        )
        square = isinstance(value, Attention) and value.key_size == value.value_size
        return type(value).__name__, square, inner
    if isinstance(value, tuple):
        return tuple(signature(one, stacked=stacked) for one in value)
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    if stacked and isinstance(value, (float, int)):
        return value if value in (0.0, 1.0, float("inf")) else "number"
    return value


def template(records: Sequence[Any], pool: dict[bytes, np.ndarray] | None = None) -> Template:
    """How to make one record of columns from records of one signature.

    The function returned is given another that takes the chunk's rows of an array with one value a record. Equal arrays
    are the same object, so that each is taken once.
    """
    pool = {} if pool is None else pool
    first = records[0]
    if all(one is first or one == first for one in records):
        plain = bare(first)
        return lambda _: plain
    if isinstance(first, Record):
        parts = {name: template([getattr(one, name) for one in records], pool) for name in fields(first)}
        plain = bare(first)
        return lambda take: replace(plain, **{name: part(take) for name, part in parts.items()})
    if isinstance(first, tuple) and all(isinstance(one, tuple) and len(one) == len(first) for one in records):
        members = [template(column, pool) for column in zip(*records, strict=True)]
        return lambda take: tuple(member(take) for member in members)
    if isinstance(first, (float, int)) and not isinstance(first, bool):
        column = np.array(records, dtype=np.float64)
        column = pool.setdefault(column.tobytes(), column)
    else:
        column = np.empty(len(records), dtype=object)
        column[:] = list(records)
    return lambda take: take(column)


_bare: dict[int, tuple[Any, Any]] = {}


def bare(value: Any) -> Any:
    """A record with plain floats for those that know where they come from: arithmetic with columns is faster so."""
    if isinstance(value, float) and type(value) is not float:
        return float(value)
    if isinstance(value, Record):
        known = _bare.get(id(value))
        if known is None or known[0] is not value:
            if len(_bare) > 256:
                _bare.clear()
            plain = replace(value, **{name: bare(getattr(value, name)) for name in fields(value)})
            known = _bare[id(value)] = (value, plain)
        return known[1]
    if isinstance(value, tuple):
        return tuple(bare(one) for one in value)
    if isinstance(value, dict):
        return {key: bare(one) for key, one in value.items()}
    return value
