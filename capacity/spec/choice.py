"""A choice: the best of many layouts, what it was chosen from, and what would change it."""

from __future__ import annotations

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

    from capacity.spec.estimate import Estimate

SCHEMA_VERSION = 1


class Option(Record):
    """One layout that may be chosen.

    setting: in one line; options: what `capacity estimate` has to be given to price it. values: its quantities by name, in
    base units, the unit at the end of the name (`run_time_s`).
    """

    setting: str
    options: dict[str, Any]
    values: dict[str, float]


class Rival(Record):
    """A layout that lost: by how much (a fraction of the objective) and in which terms, seconds more (or fewer) each."""

    option: Option
    worse: float
    terms: dict[str, float]


class Turn(Record):
    """An uncertain input that changes the choice.

    factor: the end of its interval, on the mid value; option: what is then best, and by what fraction it beats the choice.
    """

    input: str
    factor: float
    source: str
    option: Option
    gain: float


class Space(Record):
    """What was searched: legal layouts, those that fit, those that keep all limits, and how long it took.

    examined: layouts that are not ruled out by what their kernels alone take. rejected: those that fit but break each limit.
    """

    legal: int
    examined: int
    fit: int
    within: int
    seconds: float
    rejected: dict[str, int] = {}


class Choice(Record):
    """The answer to `capacity plan`.

    best: None where nothing keeps the limits; verdict then says what binds. simplest: a plainer layout that is nearly as good.
    front: layouts that no other beats in all of time, cost and memory. remedies: what would make more of the space fit, or the
    limits be kept, a line each. tried: the best of each number of devices, device or format compared.
    """

    request: dict[str, Any]
    mode: str
    objective: str
    limits: dict[str, float]
    verdict: str
    best: Option | None
    estimate: Estimate | None
    simplest: Rival | None
    front: tuple[Option, ...]
    runner_up: Rival | None
    turns: tuple[Turn, ...]
    steady: tuple[str, ...]
    space: Space
    remedies: tuple[str, ...]
    tried: tuple[Option, ...] = ()
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA_VERSION

    renderer: ClassVar[Callable[[Choice], str] | None] = None

    def rows(self) -> list[dict[str, Any]]:
        """The front as rows of plain values, such as a data frame is made of: the layout, its options and its quantities."""
        return [{"layout": one.setting, **one.options, **one.values} for one in self.front]

    def _repr_html_(self) -> str | None:
        """HTML for a notebook; None, and so the plain repr, where no renderer was set."""
        render = type(self).renderer
        return None if render is None else render(self)
