"""Intervals of whole answers, from the residuals of runs nothing was fitted on."""

from __future__ import annotations

import os
from math import exp

from capacity.estimators.intervals import Uncertain
from capacity.laws.profile import FITTED
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.stacks import Stack
    from capacity.laws.profile import Profile
    from capacity.spec.device import Device

# A device whose architecture was never measured is carried from others: its interval widens by this power.
CARRIED_WIDENING = 1.5


def composed_interval(name: str, quantity: str, profile: Profile) -> Uncertain:
    """The 90 % factor range of a composed quantity, wider where the kernel laws were carried over."""
    row = read_toml(os.path.join(FITTED, "composed.toml"))[quantity]
    # Where devices themselves were left out, of any architecture, the residuals hold that already.
    power = 1.0 if profile.basis == "measured" or row.get("any_architecture") else CARRIED_WIDENING
    return Uncertain(name, row["low"] ** power, row["high"] ** power, f"{row['source']} ({row['date']})")


def stretched(answer: tuple[float, float, float], name: str) -> tuple[float, float, float]:
    """A low, mid and high at least as far apart as residuals of one kind of row say, where more is doubtful than the law."""
    row = read_toml(os.path.join(FITTED, "composed.toml"))[name]
    low, mid, high = answer
    return min(low, mid * row["low"]), mid, max(high, mid * row["high"])


def step_interval(stack: Stack, device: Device, profile: Profile, *, routed: bool, anchors: float = 0.0) -> Uncertain:
    """The 90 % factor range of a step's time, by what kind of run it is; narrower where runs of the site were measured.

    1. log error = site + rest, with standard deviations s and w of held-out publishers.
    2. n measured runs of the site leave of its variance s^2 w^2 / (n s^2 + w^2).
    """
    tables = read_toml(stack.file)
    kind = "experts" if routed else stack.generation if device.kind == "GPU" else "accelerator"
    row = tables["interval"][kind]
    site, rest = row["site"] ** 2, row["rest"] ** 2
    left = site * rest / (anchors * site + rest)
    # Other accelerators are an interval of their own; a GPU that was never measured is carried from others.
    power = ((left + rest) / (site + rest)) ** 0.5
    power *= CARRIED_WIDENING if profile.basis != "measured" and kind != "accelerator" else 1.0
    return Uncertain("step time", row["low"] ** power, row["high"] ** power, f"{row['source']} ({tables['date']})")


def site_factor(logs: list[float], stack: Stack, device: Device, *, routed: bool) -> float:
    """How much longer steps of a site take than predicted, from the logarithms of measured over predicted of its runs.

    Shrunk towards none by how much runs of one site differ among themselves.
    """
    kind = "experts" if routed else stack.generation if device.kind == "GPU" else "accelerator"
    row = read_toml(stack.file)["interval"][kind]
    site, rest = row["site"] ** 2, row["rest"] ** 2
    runs = float(len(logs))
    trust = runs * site / (runs * site + rest)
    mean: float = sum(logs) / runs * trust
    return exp(mean)
