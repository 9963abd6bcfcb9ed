"""Rows of a request told apart by structure: which options are given, every word, and what models are made of.

Each model of a group is built once, and its sizes become columns (`stacking`); shapes inferred from sizes are columns at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.errors import CapacityError, InputError, UnknownNameError
from capacity.estimators.assumptions import number
from capacity.estimators.case import KEYS, read_case
from capacity.estimators.refusal import at
from capacity.importers.shape import TIED_BELOW, infer_shape, plausible_shapes
from capacity.record import replace
from capacity.sweeps.stacking import bare, signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from capacity.estimators.case import Case
    from capacity.spec.model import ModelSpec

    Column = np.ndarray

# Words of fewer rows are told apart without pandas.
FEW_ROWS = 1000
# Options that are numbers, which text may spell ("7B"); rows that differ in any other are different in structure.
NUMBERS = frozenset(
    {
        "acceptance", "adapters", "attention_dp", "batch", "burst", "chunk_tokens", "concurrency", "cp", "devices", "dp", "draft_tokens", "ep", "etp",
        "eval_interval", "eval_tokens", "hold_steps", "host_bandwidth", "host_share", "interleave", "length_spread", "lora_rank", "micro_batch", "night", "nodes",
        "nvme_bandwidth", "output_len", "output_variation", "params", "percentile", "pp", "prefill_attention_dp", "prefill_ep",
        "prefill_tp", "prefill_workers", "prefix_hit", "price", "prompt_len", "pue", "ramp_from", "ramp_tokens",
        "receive_steps", "recompute_share", "replicas", "request_rate", "seq_len", "tokens", "tp", "tpot_slo", "ttft_slo",
        "weight_bits", "zero",
    }
)  # fmt: skip
# Tokens of a prompt where none are given, of most models.
USUAL_PROMPT = 1024.0
# Options that say which model.
MODELS = ("params", "model", "config")
# Units of numbers that text may spell.
UNITS = {
    "host_bandwidth": "byte/s",
    "nvme_bandwidth": "byte/s",
    "price": "USD/h",
    "request_rate": "1/s",
    "ttft_slo": "s",
    "tpot_slo": "s",
}


class Group:
    """Rows of one structure.

    words: options all rows share; numbers: those that are columns, of these rows; models: that they name, each with those it
    may be instead; codes: which.
    """

    def __init__(
        self,
        where: Any,
        words: dict[str, Any],
        numbers: dict[str, Column],
        models: list[tuple[ModelSpec, ...]],
        codes: Column | None,
        error: str | None,
    ) -> None:
        self.where = where
        self.words = words
        self.numbers = numbers
        self.models = models
        self.codes = codes
        self.error = error

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.where)

    def part(self, part: slice) -> Group:
        """Some of the rows."""
        numbers = {key: column[part] for key, column in self.numbers.items()}
        codes = None if self.codes is None else self.codes[part]
        return Group(self.where[part], self.words, numbers, self.models, codes, self.error)

    @property
    def modes(self) -> tuple[str, ...]:
        """Sections of the answer."""
        mode = self.words.get("mode")
        return (mode,) if mode else ("train", "serve")


class Cases:
    """A request of columns, read: words as codes, numbers as floats."""

    def __init__(self, request: Mapping[str, Any], *, intervals: bool) -> None:
        self.rows = _length(request)
        self.intervals = intervals
        self.shared: dict[str, Any] = {}
        self.words: dict[str, tuple[list[Any], Column]] = {}
        self.numbers: dict[str, Column] = {}
        self.faults: dict[int, str] = {}
        for key, value in request.items():
            if key not in KEYS:
                raise UnknownNameError("option", key, KEYS)
            self._read(key, value)

    def _read(self, key: str, value: Any) -> None:
        if not _is_column(value):
            if value is not None and value == value:
                self.shared[key] = (value,) if key == "catalogue" and isinstance(value, str) else value
            return
        kind = getattr(getattr(value, "dtype", None), "kind", "O")
        if (key in NUMBERS or key == "grid") and kind in "biuf":
            self.numbers[key] = np.ascontiguousarray(value, dtype=np.float64)
            return
        kinds, codes = _factorised(value)
        if key not in NUMBERS:
            self.words[key] = (kinds, codes)
            return
        numbers = np.array([self._number(key, kind, codes, code) for code, kind in enumerate(kinds)] + [np.nan])
        self.numbers[key] = numbers[codes]

    def _number(self, key: str, value: Any, codes: Column, code: int) -> float:
        """A number that is text in a column; what is none becomes a fault of its rows."""
        from capacity.quantities import parse

        try:
            return float(parse(value, UNITS.get(key, "1")) if isinstance(value, str) else value)
        except (CapacityError, TypeError, ValueError) as error:
            text = str(error) if isinstance(error, CapacityError) else f"{value!r:.60} is not a number"
            for row in np.flatnonzero(codes == code):
                self.faults.setdefault(int(row), f"--{key.replace('_', '-')}: {text}")
            return float("nan")

    def groups(self) -> Iterator[Group]:
        """Rows of one structure together, in the order of their first."""
        models, model_codes, shapes = self._models()
        ids = np.zeros(self.rows, dtype=np.int64)
        for _, codes in self.words.values():
            ids = refined(ids, codes)
        for column in self.numbers.values():
            missing = np.isnan(column)
            if missing.any():
                ids = refined(ids, missing)
        for codes in self._switches():
            ids = refined(ids, codes)
        if model_codes is not None and not models:
            ids = refined(ids, model_codes)
            model_codes = None
        if model_codes is not None:
            kinds = {shape: code for code, shape in enumerate(dict.fromkeys(shapes))}
            ids = refined(ids, np.array([*(kinds[shape] for shape in shapes), -1])[model_codes])
        if self.faults:
            faulty = np.zeros(self.rows, dtype=np.int64)
            faulty[list(self.faults)] = np.arange(1, len(self.faults) + 1)
            ids = refined(ids, faulty)
        for where in _rows_by(ids):
            head = int(where[0])
            words = self.shared | {
                key: kinds[codes[head]] for key, (kinds, codes) in self.words.items() if codes[head] >= 0
            }
            numbers = {key: column[where] for key, column in self.numbers.items() if column[head] == column[head]}
            error = self.faults.get(head)
            used: list[Any] = []
            chosen = None
            if model_codes is not None and model_codes[head] >= 0:
                codes = model_codes[where]
                own, chosen = np.unique(codes, return_inverse=True)
                used = [models[code] for code in own]
                if isinstance(used[0], str):
                    used, chosen, error = [], None, error or str(used[0])
                else:
                    words = {key: value for key, value in words.items() if key not in MODELS}
            yield Group(where, words, numbers, used, chosen, error)

    def _switches(self) -> Iterator[Column]:
        """Numbers that are structure where they are nought, or one: what a server does not do at all, it has no kernel of."""
        for key in ("prefix_hit", "length_spread"):
            if key in self.numbers:
                yield self.numbers[key] == 0.0
        if "weight_bits" in self.numbers:
            yield coded(self.numbers["weight_bits"])
        if "prompt_len" in self.numbers or "prefix_hit" in self.numbers:
            # A prompt of which one token is left to read attends as a decode step does.
            prompt, hit = self._either("prompt_len", USUAL_PROMPT), self._either("prefix_hit", 0.0)
            yield prompt - prompt * hit <= 1.0

    def _either(self, key: str, usual: float) -> Column:
        """A number of each row, the usual one where none is given or it is none."""
        from capacity.quantities import parse

        if key in self.numbers:
            column = self.numbers[key]
            return np.where(np.isnan(column), usual, column)
        shared = self.shared.get(key, usual)
        try:
            return np.full(self.rows, parse(shared, "1") if isinstance(shared, str) else float(shared))
        except (CapacityError, TypeError, ValueError):
            return np.full(self.rows, usual)

    def _models(self) -> tuple[list[Any], Column | None, list[Any]]:
        """Each model named or inferred, built once; which row has which; what each is made of. A faulty one is a line."""
        named = [name for name in MODELS if name in self.shared or name in self.words or name in self.numbers]
        if len(named) != 1 or "catalogue" in self.words:
            return [], None, []
        (name,) = named
        kinds: list[Any]
        if name in self.numbers:
            # Shapes of a column of sizes are columns themselves, alike but for the embedding, which small ones share.
            return [], (self.numbers[name] < TIED_BELOW).astype(np.int64), []
        if name in self.words:
            kinds, codes = self.words[name]
        else:
            kinds, codes = [self.shared[name]], np.zeros(self.rows, dtype=np.int64)
        folders = tuple(self.shared.get("catalogue", ()))
        models = [_models(name, kind, folders, all_shapes=self.intervals) for kind in kinds]
        return models, codes, [model if isinstance(model, str) else signature(model) for model in models]


def _models(name: str, value: Any, folders: tuple[Any, ...], *, all_shapes: bool) -> tuple[ModelSpec, ...] | str:
    """A model of a request, and others it may be where its shape is a guess; where it names none, why not."""
    try:
        if name != "params":
            return (read_case({name: value, "catalogue": folders}).model,)
        size = number("--params", value, "1", 1e6, 1e13)
        if size is None or size != size:
            return "no number of parameters"
        return plausible_shapes(size) if all_shapes else (infer_shape(size),)
    except CapacityError as error:
        return str(error)


def coded(numbers: Column) -> Column:
    """A code for each different number of a column."""
    if (numbers == numbers[0]).all():
        return np.zeros(len(numbers), dtype=np.int64)
    return np.unique(numbers, return_inverse=True)[1]


def _length(request: Mapping[str, Any]) -> int:
    lengths = {key: len(value) for key, value in request.items() if _is_column(value)}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise InputError(f"columns of a request differ in length ({shown}); give each a value a row, or one for all")
    return next(iter(lengths.values()), 1)


def _is_column(value: Any) -> bool:
    return not isinstance(value, (str, tuple)) and hasattr(value, "__len__") and not isinstance(value, dict)


def _factorised(column: Any) -> tuple[list[Any], Column]:
    """The different values of a column of words, and which row has which; -1 where it has none."""
    if hasattr(column, "cat"):  # a categorical series knows
        column = column.array
    if hasattr(column, "categories"):
        return column.categories.tolist(), np.asarray(column.codes, dtype=np.int64)
    if len(column) > FEW_ROWS:
        import pandas as pd

        codes, found = pd.factorize(np.asarray(column, dtype=object))
        kinds = found.tolist()
        if "" in kinds:
            codes = np.where(codes == kinds.index(""), -1, codes)
        return kinds, codes.astype(np.int64)
    known: dict[Any, int] = {}
    codes = np.empty(len(column), dtype=np.int64)
    for row, value in enumerate(np.asarray(column, dtype=object).tolist()):
        missing = value is None or value == "" or (isinstance(value, float) and value != value)
        codes[row] = -1 if missing else known.setdefault(value, len(known))
    return list(known), codes


def refined(ids: Column, codes: Column) -> Column:
    """Groups cut further by a code of their rows, from -1 on; numbered densely, so that they never overflow."""
    if not len(codes) or (codes == codes[0]).all():
        return ids
    joined = ids * (int(codes.max()) + 2) + (codes.astype(np.int64) + 1)
    return densely(joined)


def densely(codes: Column) -> Column:
    """Codes from 0 on, as few as there are different ones, in their order."""
    most = int(codes.max(initial=0)) + 1
    if most > 4 * len(codes) + 4096:
        return np.unique(codes, return_inverse=True)[1].astype(np.int64)
    # A table of all possible codes is cheaper than sorting.
    there = np.zeros(most, dtype=np.int64)
    there[codes] = 1
    dense: Column = (np.cumsum(there) - 1)[codes]
    return dense


def _rows_by(ids: Column) -> Iterator[Column]:
    """Row numbers of each group."""
    if not len(ids):
        return
    if (ids == ids[0]).all():
        yield np.arange(len(ids))
        return
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
    yield from np.split(order, starts[1:])


def case_of(group: Group, mode: str, part: Any, make: Any) -> Case:
    """The case of a chunk of a group, whose numbers are columns."""
    request = group.words | {"mode": mode} | {key: thin(column[part]) for key, column in group.numbers.items()}
    shapes: list[ModelSpec] = []
    if make is not None and group.codes is not None:
        codes = group.codes[part]
        taken: dict[int, Any] = {}

        def take(column: Column) -> Any:
            if id(column) not in taken:
                taken[id(column)] = thin(column[codes])
            return taken[id(column)]

        request["model"], *shapes = make(take)
    case = read_case(request)
    if make is not None:
        case = replace(case, shapes=tuple(shapes))
    return replace(case, cluster=bare(case.cluster), profile=bare(case.profile))


def thin(column: Column) -> Any:
    """A column, or the one number in all its rows."""
    first = column[0]
    return at(column, 0) if (column == first).all() else column
