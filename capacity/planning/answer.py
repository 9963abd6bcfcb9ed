"""The function behind `capacity plan`."""

from __future__ import annotations

from capacity.errors import CapacityError
from capacity.planning.question import read_question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.spec.choice import Choice

# What may be a list of values to compare, by what is planned.
LISTED = {
    "train": ("device", "devices", "precision", "stack"),
    "serve": ("device", "devices", "precision", "kv_precision", "chunk_tokens", "engine"),
}


def plan(**request: Any) -> Choice:
    """The best legal layout to train, or with mode="serve" to serve, a model.

    The request is that of `capacity.estimate`; what of the layout it fixes is kept. Beside it: objective ("time", "cost",
    "energy", "carbon", "throughput-per-device" or "latency") and the limits max_memory (bytes a device), deadline (s), budget
    (USD) and power_cap (W), as numbers in base units or text ("30d"). device, devices, precision and others may be lists.
    Returns a Choice; that nothing keeps the limits is an answer. Raises CapacityError, in one line, for input that makes no
    sense, and where NumPy is not installed.
    """
    try:
        import numpy  # noqa: F401, ICN001 - asked for only whether it is there
    except ImportError:
        raise CapacityError("planning needs NumPy: pip install 'model-capacity[sweep]'") from None
    serves = request.get("mode") == "serve"
    question = read_question(request, LISTED["serve" if serves else "train"])
    if serves:
        from capacity.planning.serving import choose_serving

        return choose_serving(question)
    from capacity.planning.training import choose_training

    return choose_training(question)
