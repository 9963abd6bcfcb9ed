"""An answer: named quantities with intervals, what binds, what was assumed."""

from __future__ import annotations

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

SCHEMA_VERSION = 1


class Quantity(Record):
    """A named number with its 90 % interval: low <= mid <= high, in the base unit `unit`.

    note: what it counts, in a few words.
    """

    name: str
    low: float
    mid: float
    high: float
    unit: str
    note: str = ""

    @property
    def exact(self) -> bool:
        """Whether the interval has no width."""
        return self.low == self.high


class Assumption(Record):
    """A value the answer rests on. tag: user > measured > catalogue > model > inferred > default."""

    name: str
    value: float | str
    unit: str
    tag: str
    source: str = ""


class Section(Record):
    """One half of an answer, such as training or serving, on one cluster and layout.

    verdict: one line (fits or not, by how much, what binds). fits: None where it does not apply.
    quantities in display order; breakdowns: for "memory" (byte) and "time" (s), the parts by name.
    binding: the resource that limits ("compute", "memory bandwidth", "network", "launch latency", "offloading", "memory").
    alternatives: the same case on other devices or layouts, a row each.
    """

    title: str
    verdict: str
    fits: bool | None
    binding: str
    setting: str
    quantities: dict[str, Quantity]
    breakdowns: dict[str, dict[str, float]]
    alternatives: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


class Estimate(Record):
    """The answer to one question.

    request: what was asked, as given. model: facts of the model by name. sections by mode ("train", "serve", ...).
    sensitivities: for each quantity, the assumptions that make its interval, widest first, as the
    fraction of its squared (log) width.
    """

    request: dict[str, Any]
    model: dict[str, Any]
    sections: dict[str, Section]
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...] = ()
    sensitivities: dict[str, dict[str, float]] = {}
    schema: int = SCHEMA_VERSION

    # How a notebook shows it. Records import nothing above them, so the package's front door sets it.
    renderer: ClassVar[Callable[[Estimate], str] | None] = None

    def _repr_html_(self) -> str | None:
        """HTML for a notebook; None, and so the plain repr, where no renderer was set."""
        render = type(self).renderer
        return None if render is None else render(self)
