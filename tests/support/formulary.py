"""Every formula the package has, found by importing all modules that may hold one."""

from __future__ import annotations

import importlib
import pkgutil

import capacity.formulas
import capacity.laws
from capacity.formula import Formula, registry
from capacity.quantities import unit_in_name


def formulas() -> dict[str, Formula]:
    """Formulas of the package by name; those that keep the unit they are given have tests of their own."""
    for package in (capacity.formulas, capacity.laws):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    return {
        name: entry
        for name, entry in sorted(registry().items())
        if entry.function.__module__.startswith("capacity.") and entry.unit != "same"
    }


def parameter_units(entry: Formula) -> dict[str, str]:
    """The unit each parameter's name carries."""
    return {name: unit_in_name(name) for name in entry.parameters}
