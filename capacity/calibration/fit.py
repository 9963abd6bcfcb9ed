"""Fits that shrug off odd rows: of a law's parameters in logarithms, held near a prior, and of a sum of terms, none negative.

Needs SciPy (the `calibrate` extra).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares, nnls

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capacity.laws.kernels.parameters import Parameter

    # Seconds of some rows (an index; None: all) under some parameters.
    Predict = Callable[[Mapping[str, float], np.ndarray | None], np.ndarray]

# Errors up to this size (in logarithms) count in squares, larger ones by their size: a kernel library's odd choices
# must not bend the law of the others.
ROBUST_AT = 0.08
# Laws step where tiles and waves are whole numbers: a difference this wide (in logarithms) sees over the steps.
STEP = 0.02
# A law with corners has many dead ends: the search hops from the best end so far, by this share of each spread,
# on this many rows; the end is polished on all.
HOP, HOP_ROWS = 0.4, 800
HOP_EVALUATIONS, POLISH_EVALUATIONS = 10, 25
# Never let one row's luck or a whole table's smoothness claim more than this certainty.
LEAST_SCALE = 0.03
SEED = 20
# Rounds in which rows that stay far off a sum of terms lose weight.
ROUNDS = 6


class Fit(Record):
    """Fitted parameters; uncertainty: standard error of each in logarithms; cost: what was minimised, per row."""

    parameters: dict[str, float]
    uncertainty: dict[str, float]
    cost: float


class _Problem:
    """Residuals in units of ROBUST_AT over z = ln(parameter / prior) / spread, and their derivatives."""

    def __init__(
        self,
        predict: Predict,
        measured: np.ndarray,
        weights: np.ndarray,
        specs: Mapping[str, Parameter],
        prior: Mapping[str, float],
        hold: float,
        rows: np.ndarray | None = None,
    ) -> None:
        self.names = [name for name in specs if name in prior]
        self.centre = np.log([prior[name] for name in self.names])
        self.spread = np.array([specs[name].spread for name in self.names])
        low = (np.log([specs[name].low for name in self.names]) - self.centre) / self.spread
        high = (np.log([specs[name].high for name in self.names]) - self.centre) / self.spread
        self.low, self.high = np.minimum(low, -1e-6), np.maximum(high, 1e-6)
        chosen = slice(None) if rows is None else rows
        self.target = np.log(measured[chosen])
        share = len(measured) / len(self.target)
        self.root = np.sqrt(weights[chosen] * share)
        self.count = len(self.target)
        self.pull = np.sqrt(hold)
        self.predict, self.rows = predict, rows

    def named(self, z: np.ndarray) -> dict[str, float]:
        return dict(zip(self.names, np.exp(self.centre + self.spread * z).tolist(), strict=True))

    def inside(self, parameters: Mapping[str, float]) -> np.ndarray:
        z = (np.log([parameters[name] for name in self.names]) - self.centre) / self.spread
        within: np.ndarray = np.clip(z, self.low + 1e-9, self.high - 1e-9)
        return within

    def residuals(self, z: np.ndarray) -> np.ndarray:
        off = (np.log(self.predict(self.named(z), self.rows)) - self.target) / ROBUST_AT
        whole: np.ndarray = np.concatenate([off * self.root, self.pull * z])
        return whole

    def jacobian(self, z: np.ndarray) -> np.ndarray:
        here = self.residuals(z)
        columns = []
        for index in range(len(z)):
            step = np.zeros(len(z))
            # Away from the nearer bound.
            step[index] = (
                STEP / self.spread[index] * (1.0 if z[index] - self.low[index] < self.high[index] - z[index] else -1.0)
            )
            columns.append((self.residuals(z + step) - here) / step[index])
        return np.stack(columns, axis=1)

    def loss(self, squares: np.ndarray) -> np.ndarray:
        """Soft-L1 for rows, in units of their own weight; plain squares for the prior: value and two derivatives."""
        scale = np.concatenate([self.root**2, np.ones(len(self.names))])
        ratio = squares / scale
        wide = np.sqrt(1.0 + ratio[: self.count])
        value, slope, bend = ratio.copy(), np.ones_like(ratio), np.zeros_like(ratio)
        value[: self.count], slope[: self.count], bend[: self.count] = 2.0 * (wide - 1.0), 1.0 / wide, -0.5 / wide**3
        return np.stack([value * scale, slope, bend / scale])

    def solve(self, start: np.ndarray, evaluations: int) -> tuple[np.ndarray, float]:
        found = least_squares(
            self.residuals,
            start,
            jac=self.jacobian,
            bounds=(self.low, self.high),
            loss=self.loss,
            max_nfev=evaluations,
            xtol=1e-4,
            ftol=1e-4,
        )
        return found.x, float(found.cost)

    def uncertainty(self, z: np.ndarray) -> np.ndarray:
        """Standard errors in logarithms: the curvature at the end, rows beyond ROBUST_AT counting less as in the cost."""
        rows = self.residuals(z)[: self.count] / self.root
        slopes = self.jacobian(z)
        scale = max(float(np.median(np.abs(rows))) / 0.6745, LEAST_SCALE / ROBUST_AT)
        slopes[: self.count] *= ((1.0 + rows**2) ** -0.25)[:, None] / scale
        covariance = np.linalg.inv(slopes.T @ slopes + 1e-9 * np.eye(len(z)))
        errors: np.ndarray = np.sqrt(np.diag(covariance)) * self.spread
        return errors


def fit(
    predict: Predict,
    measured: np.ndarray,
    specs: Mapping[str, Parameter],
    prior: Mapping[str, float],
    *,
    starts: Sequence[Mapping[str, float]] = (),
    weights: np.ndarray | None = None,
    hold: float = 1.0,
    hops: int = 4,
    smooth: int = 0,
) -> Fit:
    """The parameters under which `predict` comes closest to `measured` seconds.

    1. Unknowns are z = ln(parameter / prior) / spread, inside the bounds of each `Parameter`.
    2. Minimised: sum of weights x soft-L1 of ln(predicted / measured), plus hold x z^2, in squared units of ROBUST_AT.
    3. The search starts from the prior and from each of `starts`, then hops from the best end so far; see HOP.
    smooth: evaluations that are enough for a law without corners: from the first of `starts`, or the prior, without a
    search and without uncertainties (0: the law has corners).
    """
    weights = np.ones(len(measured)) if weights is None else weights
    whole = _Problem(predict, measured, weights, specs, prior, hold)
    if smooth:
        z, cost = whole.solve(whole.inside((*starts, prior)[0]), smooth)
        return Fit(parameters=whole.named(z), uncertainty={}, cost=cost / len(measured))
    chance = np.random.default_rng(SEED)
    few = whole
    if len(measured) > HOP_ROWS:
        some = np.sort(chance.choice(len(measured), HOP_ROWS, replace=False))
        few = _Problem(predict, measured, weights, specs, prior, hold, some)
    best: tuple[np.ndarray, float] | None = None
    begins = [few.inside(start) for start in (prior, *starts)]
    for begin in begins:
        found = few.solve(begin, HOP_EVALUATIONS)
        best = found if best is None or found[1] < best[1] else best
    assert best is not None
    for _ in range(hops):
        begin = np.clip(best[0] + HOP * chance.standard_normal(len(best[0])), few.low + 1e-9, few.high - 1e-9)
        found = few.solve(begin, HOP_EVALUATIONS)
        best = found if found[1] < best[1] else best
    z, cost = whole.solve(best[0], POLISH_EVALUATIONS)
    return Fit(
        parameters=whole.named(z),
        uncertainty=dict(zip(whole.names, whole.uncertainty(z).tolist(), strict=True)),
        cost=cost / len(measured),
    )


def fit_sum(matrix: np.ndarray, wanted: np.ndarray, outlier: float) -> np.ndarray:
    """Coefficients, none negative, under which the columns of `matrix` add up to `wanted`; both in the units errors count in.

    Errors up to `outlier` count in squares. A row that stays further off loses weight round by round, so that it counts by its size.
    """
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    columns = matrix / scale
    weights = np.ones(len(wanted))
    found = np.zeros(matrix.shape[1])
    for _ in range(ROUNDS):
        found, _ = nnls(columns * weights[:, None], wanted * weights, maxiter=100 * matrix.shape[1])
        off = np.abs(columns @ found - wanted)
        weights = np.sqrt(np.minimum(1.0, outlier / np.maximum(off, 1e-9)))
    coefficients: np.ndarray = found / scale
    return coefficients
