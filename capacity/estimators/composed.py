"""Intervals of whole answers, from the residuals of runs nothing was fitted on."""

from __future__ import annotations

import os

from capacity.estimators.intervals import Uncertain
from capacity.laws.profile import FITTED
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.laws.profile import Profile

# A device whose architecture was never measured is carried from others: its interval widens by this power.
CARRIED_WIDENING = 1.5


def composed_interval(name: str, quantity: str, profile: Profile) -> Uncertain:
    """The 90 % factor range of a composed quantity, wider where the kernel laws were carried over."""
    row = read_toml(os.path.join(FITTED, "composed.toml"))[quantity]
    power = 1.0 if profile.basis == "measured" else CARRIED_WIDENING
    return Uncertain(name, row["low"] ** power, row["high"] ** power, f"{row['source']} ({row['date']})")
