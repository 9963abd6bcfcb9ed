"""A question to `capacity plan`, read and checked: the request of an estimate, what to choose by, and limits."""

from __future__ import annotations

from itertools import product

from capacity.errors import InputError
from capacity.estimators.assumptions import number, one_of
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

OBJECTIVES = ("time", "cost", "energy", "carbon", "throughput-per-device", "latency")
# Limits by the name of the request: the unit they are read in.
LIMITS = {"max_memory": "byte", "deadline": "s", "budget": "USD", "power_cap": "W"}
# What a layout is chosen for.
MODES = ("train", "finetune", "lora", "serve")
# What can be solved for, and what a scaling law is asked with.
SOLVED = ("params", "tokens", "devices", "seq-len", "concurrency", "budget", "days", "global-batch")
BACKWARDS = ("flop_budget", "target_loss", "served_tokens", "law")


class Question(Record):
    """What is chosen by, under which limits (base units), and the requests of an estimate to choose among."""

    objective: str
    limits: dict[str, float]
    request: dict[str, Any]
    variants: tuple[dict[str, Any], ...]

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the request that have several values."""
        return tuple(name for name, value in self.request.items() if isinstance(value, tuple) and name != "catalogue")


def read_question(request: dict[str, Any], listed: tuple[str, ...]) -> Question:
    """Check objective and limits, and deal out the values of what may be a list ("256,512", or a list)."""
    request = {name: value for name, value in request.items() if value is not None}
    one_of("--mode", request.get("mode"), MODES)
    objective = one_of("--objective", request.pop("objective", None), OBJECTIVES) or ""
    limits: dict[str, float] = {}
    for name, unit in LIMITS.items():
        value = number("--" + name.replace("_", "-"), request.pop(name, None), unit, 0.0, 1e30, above=True)
        if value is not None:
            limits[name] = value
    several = {name: values for name in listed if len(values := _values(request, name)) > 1}
    for name in listed:
        if name in request:
            request[name] = several.get(name) or _values(request, name)[0]
    return Question(objective, limits, request, tuple(_variants(request, several)))


def _values(request: dict[str, Any], name: str) -> tuple[Any, ...]:
    value = request.get(name, ())
    if isinstance(value, str):
        value = tuple(word.strip() for word in value.split(","))
        if not all(value):
            raise InputError(f"--{name.replace('_', '-')} is {request[name]!r:.60}: a value is missing beside a comma")
    found = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(dict.fromkeys(found))


def _variants(request: dict[str, Any], several: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in product(*several.values()):
        yield request | dict(zip(several, values, strict=True))


def plain(value: Any) -> Any:
    """A value of a request as JSON has it."""
    if isinstance(value, (tuple, list)):
        return [plain(one) for one in value]
    return value if isinstance(value, (str, int, float, bool)) else str(value)
