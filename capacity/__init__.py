"""What a large model costs to run, before you pay for it; then checked on the hardware.

    >>> import capacity
    >>> capacity.estimate(params=7e9)

Public functions are loaded when first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.catalogue import load_cluster, load_device, load_model
    from capacity.estimators import estimate
    from capacity.estimators.kernel import kernel
    from capacity.importers import read_config
    from capacity.planning.answer import plan
    from capacity.planning.backwards import solve
    from capacity.reporting.report import report
    from capacity.sweeps.columns import estimate_columns
    from capacity.sweeps.frame import estimate_frame
    from capacity.sweeps.run import sweep

_HOMES = {
    "estimate": "capacity.estimators",
    "estimate_columns": "capacity.sweeps.columns",
    "estimate_frame": "capacity.sweeps.frame",
    "kernel": "capacity.estimators.kernel",
    "load_cluster": "capacity.catalogue",
    "load_device": "capacity.catalogue",
    "load_model": "capacity.catalogue",
    "plan": "capacity.planning",
    "read_config": "capacity.importers",
    "report": "capacity.reporting.report",
    "solve": "capacity.planning",
    "sweep": "capacity.sweeps.run",
}

__all__ = [
    "__version__",
    "estimate",
    "estimate_columns",
    "estimate_frame",
    "kernel",
    "load_cluster",
    "load_device",
    "load_model",
    "plan",
    "read_config",
    "report",
    "solve",
    "sweep",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'capacity' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    if name == "estimate":
        from capacity.spec.estimate import Estimate

        Estimate.renderer = staticmethod(_html)
    elif name == "plan":
        from capacity.spec.choice import Choice

        Choice.renderer = staticmethod(_choice_html)
    elif name == "solve":
        from capacity.spec.solution import Solution

        Solution.renderer = staticmethod(_solution_html)
    return value


def _html(estimate: Any) -> str:
    """Show an estimate in a notebook; the renderer is imported when a notebook asks for it."""
    from capacity.rendering.notebook import html

    return html(estimate)


def _choice_html(choice: Any) -> str:
    from capacity.rendering.choice import html

    return html(choice)


def _solution_html(solution: Any) -> str:
    from capacity.rendering.solution import html

    return html(solution)


def __dir__() -> list[str]:
    return sorted(__all__)
