"""Predictions held against measurements, in one form for every kind: see docs/accuracy.md.

A kind is a module of this package with `validate(data: str | None) -> dict`. Needs the `sweep` extra (NumPy, pandas).
"""

from __future__ import annotations

from capacity.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The module of each kind is named after it; what its data is.
KINDS = {
    "kernels": "a folder of tables of measured kernels",
    "serving": "a table of runs of loaded servers",
    "inference": "a table of runs of inference engines on one machine",
    "energy": "a table of measured energies of inference and training",
    "training": "a table of training runs",
    "memory": "a table of peak memory of training",
    "platform": "what `capacity bench` kept: this machine's storage, ciphers and preparation at sizes no fit has seen",
    "vision": "a table of images a second of vision networks, in training and inference",
    "local": "what `capacity bench` kept: this machine's laws against its workloads",
}


def validate(kind: str, data: str | None = None, profiles: str | None = None) -> dict[str, Any]:
    """Score predictions of a kind against the measurements in `data`, or against the project's own where it has some.

    profiles: a folder that `capacity calibrate kernels` wrote, instead of the package's own profiles of kernels.
    Returns {"schema", "kind", "overall", "groups", "worst", "unpriced"} with plain numbers; under "views" the group keys
    a table may show, by name, the usual one first; under "rows" the predictions themselves as a pandas frame.
    Raises InputError for an unknown kind or missing data, FileFormatError for tables that are missing or lack a column.
    """
    if kind not in KINDS:
        raise InputError(f"nothing can be validated as {kind[:40]!r}; choose from {', '.join(KINDS)}")
    from importlib import import_module

    try:
        module = import_module(f"capacity.validation.{kind}")
    except ModuleNotFoundError as error:
        raise InputError(f'validation needs {error.name}: pip install "model-capacity[sweep]"') from None
    if profiles and kind != "kernels":
        raise InputError(f"profiles are of kernels; {kind} takes none")
    scores: dict[str, Any] = module.validate(data, profiles) if profiles else module.validate(data)
    return scores


def site_of(path: str) -> tuple[float, float]:
    """By how much the measured runs of a table take longer than predicted, and how many they are (1 to 3).

    Raises InputError where there are none or more, or one cannot be priced.
    """
    try:
        from capacity.validation.training import site
    except ModuleNotFoundError as error:
        raise InputError(f'--anchor needs {error.name}: pip install "model-capacity[sweep]"') from None
    return site(path)
