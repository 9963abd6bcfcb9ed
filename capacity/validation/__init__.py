"""Predictions held against measurements, in one form for every kind: see docs/accuracy.md.

Needs the `sweep` extra (NumPy, pandas).
"""

from __future__ import annotations

from capacity.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = ("kernels",)


def validate(kind: str, data: str) -> dict[str, Any]:
    """Score predictions of a kind against the tables in `data`.

    Returns {"schema", "kind", "overall", "groups", "worst", "unpriced"} with plain numbers, and under "rows" the
    predictions themselves as a pandas frame. Raises InputError for an unknown kind, FileFormatError for tables
    that are missing or lack a column.
    """
    if kind != "kernels":
        raise InputError(f"nothing can be validated as {kind[:40]!r}; choose from {', '.join(KINDS)}")
    try:
        from capacity.validation.kernels import validate_kernels
    except ModuleNotFoundError as error:
        raise InputError(f'validation needs {error.name}: pip install "model-capacity[sweep]"') from None
    return validate_kernels(data)
