"""A question answered backwards: the value of one input for which the rest of a question holds."""

from __future__ import annotations

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

    from capacity.spec.choice import Option
    from capacity.spec.estimate import Estimate

SCHEMA_VERSION = 1


class Trial(Record):
    """A value that was tried: whether all held, and what it came to or what broke, in a few words."""

    value: float
    holds: bool
    why: str


class Solution(Record):
    """The answer to `capacity plan --solve`.

    value: None where none holds; verdict then says what binds. beyond: the next value, which does not hold (None: there is no
    next). option: the layout at the value; facts: what else follows, by name with the unit at its end. law: the scaling law
    that was asked. trials: every value that was tried, in its order.
    """

    request: dict[str, Any]
    solve: str
    limits: dict[str, float]
    value: float | None
    unit: str
    verdict: str
    beyond: Trial | None
    option: Option | None
    estimate: Estimate | None
    facts: dict[str, float]
    trials: tuple[Trial, ...]
    seconds: float
    law: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA_VERSION

    renderer: ClassVar[Callable[[Solution], str] | None] = None

    def _repr_html_(self) -> str | None:
        """HTML for a notebook; None, and so the plain repr, where no renderer was set."""
        render = type(self).renderer
        return None if render is None else render(self)
