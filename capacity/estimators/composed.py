"""Intervals of whole answers, from the residuals of runs nothing was fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.estimators.intervals import Uncertain

if TYPE_CHECKING:
    from capacity.laws.profile import Profile

# A device whose architecture was never measured is carried from others: its interval widens by this power.
CARRIED_WIDENING = 1.5

_rows: dict[str, Any] = {}


def composed_interval(name: str, quantity: str, profile: Profile) -> Uncertain:
    """The 90 % factor range of a composed quantity, wider where the kernel laws were carried over."""
    if not _rows:
        import os
        import tomllib

        from capacity import laws

        path = os.path.join(os.path.dirname(laws.__file__), "fitted", "composed.toml")  # noqa: PTH118, PTH120
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs 4 ms
            _rows.update(tomllib.load(file))
    row = _rows[quantity]
    power = 1.0 if profile.basis == "measured" else CARRIED_WIDENING
    return Uncertain(name, row["low"] ** power, row["high"] ** power, f"{row['source']} ({row['date']})")
