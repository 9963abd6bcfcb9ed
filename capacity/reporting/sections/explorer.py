"""What if: the same question over a grid of devices and load, worked out beforehand, for a reader to turn through."""

from __future__ import annotations

from capacity.rendering import selection, words
from capacity.reporting.content import Dial, Explorer
from capacity.reporting.figures.scaling import asked_again, base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.figures.shown import Shown

_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_TRAINING = ("run_time", "cost", "tokens_per_s", "mfu", "memory_per_device", "energy")
_SERVING = ("ttft", "tpot", "tokens_per_s", "memory_per_device", "cost_per_million_tokens", "energy_per_token")
_LABELS = {
    "devices": "Devices",
    "batch": "Sequences in a batch",
    "concurrency": "Requests in flight",
    "request_rate": "Requests a second",
}


def explorer(one: Shown) -> tuple[Explorer, ...]:
    """A grid of devices and batch, or of devices and load; nothing where the question cannot be asked again."""
    if one.request is None or not {"step_time", "tpot"} & one.part.quantities.keys():
        return ()
    load = "batch" if one.training else "request_rate" if "request_rate" in one.request else "concurrency"
    names = tuple(name for name in (_TRAINING if one.training else _SERVING) if name in one.part.quantities)
    dials = [_dial(one, option) for option in ("devices", load)]
    if any(dial is None or len(dial[1]) < 2 for dial in dials):
        return ()
    (down, rows), (across, columns) = (dial for dial in dials if dial is not None)
    answers = {
        f"{i},{j}": told
        for i, devices in enumerate(rows)
        for j, much in enumerate(columns)
        if (told := _answer(one, names, {"devices": int(devices), load: much})) is not None
    }
    if f"{down.start},{across.start}" not in answers or len(answers) < 4:
        return ()
    labels = {**selection.ESTIMATED, **selection.COUNTED}
    said = ("Fits", *(labels.get(name) or words.label(name) for name in names))
    return (Explorer("What if", (down, across), said, answers),)


def _dial(one: Shown, option: str) -> tuple[Dial, list[float]] | None:
    asked = (one.request or {}).get(option)
    start = float(asked) if isinstance(asked, (int, float)) else base(one, option) if option != "request_rate" else None
    if start is None:
        return None
    whole = option != "request_rate"
    values = [
        start * factor for factor in _FACTORS if not whole or (start * factor >= 1.0 and (start * factor).is_integer())
    ]
    texts = tuple(words.value(value) for value in values)
    return Dial(option, _LABELS[option], texts, values.index(start)), values


def _answer(one: Shown, names: tuple[str, ...], changes: dict[str, Any]) -> tuple[tuple[str, str], ...] | None:
    """The quantities in words, the verdict first."""
    part = asked_again(one, **changes)
    if part is None or any(name not in part.quantities for name in names):
        return None
    fits = {True: "yes", False: "no", None: "–"}[part.fits]
    told = [(fits, f"bound by {part.binding}")]
    for name in names:
        number, unit = words.middle(part.quantities[name])
        told.append((f"{number} {unit}".strip(), words.spread(part.quantities[name])))
    return tuple(told)
