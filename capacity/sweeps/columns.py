"""Columns of cases in, columns of quantities out: the same formulas as one estimate, a chunk of rows at a time.

1. Rows are grouped by what is structure: which options are given, every word, and what models are made of.
2. Each model of a group is built once, its sizes become columns (`stacking`); shapes inferred from sizes are columns at once.
3. A chunk of a group that fits the cache is one call of the estimators, whose numbers are columns.
4. Where layouts are to be searched, a candidate is tried on all rows that are still open (`search`).
5. What cannot be a column is estimated row by row, each case once, and counted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.errors import CapacityError, InputError, UnknownNameError
from capacity.estimators import layout
from capacity.estimators.assumptions import number
from capacity.estimators.case import KEYS, PLATFORM_KEYS, read_case
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.refusal import RefusedError, at, noting, refuse
from capacity.estimators.training import priced, run_values, with_ranges
from capacity.estimators.training_account import account, case_fewest
from capacity.estimators.training_run import price_run, read_workload
from capacity.estimators.training_weights import weights_of
from capacity.importers.shape import TIED_BELOW, infer_shape, plausible_shapes
from capacity.record import Record, replace
from capacity.spec.workload import TRAINING_MODES
from capacity.sweeps.search import choose, rows_of
from capacity.sweeps.stacking import bare, signature, template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from capacity.estimators.case import Case
    from capacity.estimators.refusal import Refused
    from capacity.estimators.training_run import Run
    from capacity.spec.estimate import Quantity
    from capacity.spec.model import ModelSpec
    from capacity.spec.workload import Workload

    Column = np.ndarray

# Rows priced in one call: the columns that are alive at a time fit a core's own cache, and Python's share is small.
CHUNK_ROWS = 16384
# Modes whose rows can be columns.
COLUMNAR = ("train", "finetune", "lora")
# From so many rows on layouts are searched as columns, so many at a time.
SEARCHED_ROWS, SEARCHED_CHUNK = 200, 4096
# Words of fewer rows are told apart without pandas.
FEW_ROWS = 1000
# Options that are numbers, which text may spell ("7B"); rows that differ in any other are different in structure.
NUMBERS = frozenset(
    {
        "acceptance", "attention_dp", "batch", "burst", "concurrency", "cp", "devices", "dp", "draft_tokens", "ep", "etp",
        "eval_interval", "eval_tokens", "hold_steps", "interleave", "length_spread", "lora_rank", "micro_batch", "night", "nodes",
        "nvme_bandwidth", "output_len", "output_variation", "params", "percentile", "pp", "prefill_attention_dp", "prefill_ep",
        "prefill_tp", "prefill_workers", "prefix_hit", "price", "prompt_len", "pue", "ramp_from", "ramp_tokens",
        "receive_steps", "recompute_share", "replicas", "request_rate", "seq_len", "tokens", "tp", "tpot_slo", "ttft_slo",
        "weight_bits", "zero",
    }
)  # fmt: skip
# Options that say which model.
MODELS = ("params", "model", "config")
# Units of numbers that text may spell.
UNITS = {"nvme_bandwidth": "byte/s", "price": "USD/h", "request_rate": "1/s", "ttft_slo": "s", "tpot_slo": "s"}


class Answer(Record):
    """Quantities of many cases, a row each.

    quantities: by full name ("train.step_time"), float64, NaN where a row has none; errors: why a row has no answer, None where
    it has one; singly: rows that were not priced as columns.
    """

    quantities: dict[str, Column]
    errors: Column
    singly: int = 0


def estimate_columns(
    request: Mapping[str, Any], *, intervals: bool = False, chunk_rows: int = CHUNK_ROWS
) -> dict[str, Column]:
    """Every quantity of many cases by its full name, as float64 columns.

    request: the options of `capacity.estimate`, each a value for all cases or a column of them (NaN or None: not given).
    intervals: the ends of each quantity's 90 % interval too, as `train.step_time_low` and `_high`.
    Raises InputError for a row that makes no sense; `answer_columns` gives its reason as a value instead.
    """
    answer = answer_columns(request, intervals=intervals, chunk_rows=chunk_rows)
    for row, error in enumerate(answer.errors):
        if error is not None:
            raise InputError(f"row {row}: {error}")
    return answer.quantities


def answer_columns(request: Mapping[str, Any], *, intervals: bool = False, chunk_rows: int = CHUNK_ROWS) -> Answer:
    """Every quantity of many cases; rows that make no sense have a reason instead."""
    cases = _Cases(request, intervals=intervals)
    found = _Found(cases.rows, intervals=intervals)
    with np.errstate(all="ignore"):
        for group in cases.groups():
            for mode in group.modes:
                _price_group(group, mode, found, chunk_rows)
    return found.answer()


class _Found:
    """Results as they come, scattered to their rows."""

    def __init__(self, rows: int, *, intervals: bool) -> None:
        self.rows = rows
        self.intervals = intervals
        self.values: dict[str, Column] = {}
        self.errors = np.full(rows, None, dtype=object)
        self.singly = 0

    def put(self, where: Any, name: str, values: Any) -> None:
        """Give rows their values of a quantity."""
        column = self.values.get(name)
        if column is None:
            column = self.values[name] = np.full(self.rows, 0.0 if is_part(name) else np.nan)
        column[where] = values

    def answer(self) -> Answer:
        """All of it; a part of memory or time that a row has nothing of is nought, in a row without an answer unknown."""
        bad = self.errors != None  # noqa: E711 - element by element
        for name, column in self.values.items():
            if is_part(name):
                column[np.isnan(self.values[f"{name.split('.', 1)[0]}.fits"])] = np.nan
            column[bad] = np.nan
        return Answer(self.values, self.errors, self.singly)


def is_part(name: str) -> bool:
    """Whether a quantity is a part of a breakdown, such as `train.time.GEMM`."""
    return name.count(".") > 1


class _Group:
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

    def part(self, part: slice) -> _Group:
        """Some of the rows."""
        numbers = {key: column[part] for key, column in self.numbers.items()}
        codes = None if self.codes is None else self.codes[part]
        return _Group(self.where[part], self.words, numbers, self.models, codes, self.error)

    @property
    def modes(self) -> tuple[str, ...]:
        """Sections of the answer."""
        mode = self.words.get("mode")
        return (mode,) if mode else ("train", "serve")


class _Cases:
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

    def groups(self) -> Iterator[_Group]:
        """Rows of one structure together, in the order of their first."""
        models, model_codes, shapes = self._models()
        ids = np.zeros(self.rows, dtype=np.int64)
        for _, codes in self.words.values():
            ids = _refined(ids, codes)
        for column in self.numbers.values():
            missing = np.isnan(column)
            if missing.any():
                ids = _refined(ids, missing)
        if model_codes is not None and not models:
            ids = _refined(ids, model_codes)
            model_codes = None
        if model_codes is not None:
            kinds = {shape: code for code, shape in enumerate(dict.fromkeys(shapes))}
            ids = _refined(ids, np.array([*(kinds[shape] for shape in shapes), -1])[model_codes])
        if self.faults:
            faulty = np.zeros(self.rows, dtype=np.int64)
            faulty[list(self.faults)] = np.arange(1, len(self.faults) + 1)
            ids = _refined(ids, faulty)
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
            yield _Group(where, words, numbers, used, chosen, error)

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


def _price_group(group: _Group, mode: str, found: _Found, chunk_rows: int) -> None:
    """One section of the answers of a group."""
    if group.error is not None:
        found.errors[group.where] = group.error
        return
    stated = _is_stated(group)
    known = group.models or "params" in group.numbers
    if mode not in COLUMNAR or not known or not (stated or group.rows >= SEARCHED_ROWS) or _is_beside(group):
        _price_singly(group, mode, found)
        return
    make = template(group.models) if group.models else None
    fewest = _fewest(group, mode, make)
    chunk_rows = chunk_rows if stated else min(chunk_rows, SEARCHED_CHUNK)
    for start in range(0, group.rows, chunk_rows):
        part = slice(start, start + chunk_rows)
        try:
            if stated:
                _price_stated(group, mode, part, make, fewest, found)
            else:
                _price_searched(group, mode, part, make, fewest, found)
        except (ArithmeticError, IndexError, TypeError, ValueError):
            # Something that takes no columns yet: nobody is left without an answer for that.
            _price_singly(group.part(part), mode, found)


def _price_stated(group: _Group, mode: str, part: slice, make: Any, fewest: Column | None, found: _Found) -> None:
    """A chunk of rows whose layouts are given."""
    where = group.where[part]
    with noting() as refused:
        try:
            case = _case(group, mode, part, make)
            workload, devices = read_workload(case)
            run = price_run(case, case.model, workload, case.cluster, devices)
            _tell(found, where, mode, case, workload, devices, run, None if fewest is None else _thin(fewest[part]))
        except CapacityError as error:
            _refuse_all(refused, error, len(where))
    _note(found, where, refused)


def _price_searched(group: _Group, mode: str, part: slice, make: Any, fewest: Column | None, found: _Found) -> None:
    """A chunk of rows whose layouts are searched first, a candidate at a time over all of them."""
    where = group.where[part]
    rows = len(where)
    with noting() as refused:
        try:
            case = _case(group, mode, part, make)
            workload, devices = read_workload(case)
            shut = np.zeros(rows, dtype=bool)
            for condition, _ in refused:
                shut |= condition
            choice = choose(case, workload, devices, rows, shut)
            refuse((choice.policy < 0) & ~shut, layout.illegal(case.model, choice.given, devices))
        except CapacityError as error:
            _refuse_all(refused, error, rows)
            _note(found, where, refused)
            return
    _note(found, where, refused)
    for here, plan in choice.layouts():
        one, work, all_devices = rows_of((case, workload, devices), here, rows)
        known = None if fewest is None else _thin(fewest[part][here])
        with noting() as refused:
            try:
                layout.check(one.model, plan, all_devices)
                run = price_run(one, one.model, work, one.cluster, all_devices, plan=plan)
                run = replace(run, fits=choice.fits[here])
                _tell(found, where[here], mode, one, work, all_devices, run, known)
            except CapacityError as error:
                _refuse_all(refused, error, len(here))
        _note(found, where[here], refused)


def _tell(
    found: _Found, where: Column, mode: str, case: Case, workload: Workload, devices: float, run: Run, fewest: Any
) -> None:
    """Give rows the quantities of their runs."""
    told = account(case, run, fewest=fewest)
    ends = _ends(with_ranges(case, workload, devices, run, told)[0]) if found.intervals else {}
    for name, value in (run_values(run, told) | ends | {"fits": run.fits}).items():
        found.put(where, f"{mode}.{name}", value)


def _refuse_all(refused: Refused, error: CapacityError, rows: int) -> None:
    """The same is wrong in every row; what to tell each may still differ."""
    told = error.message if isinstance(error, RefusedError) else partial(_said, str(error))
    refused.append((np.ones(rows, dtype=bool), told))


def _said(text: str, _: Any) -> str:
    return text


def _ends(quantities: Mapping[str, Quantity]) -> dict[str, float]:
    """Both ends of each interval."""
    found = {}
    for name, quantity in quantities.items():
        found[f"{name}_low"], found[f"{name}_high"] = quantity.low, quantity.high
    return found


def _is_stated(group: _Group) -> bool:
    """Whether no layout has to be searched."""
    model = group.models[0][0] if group.models else infer_shape(TIED_BELOW)
    return layout.leaves_nothing_open(model, {*group.words, *group.numbers})


def _is_beside(group: _Group) -> bool:
    """Whether something is asked about the platform under the rows, which takes no columns."""
    return not {*group.words, *group.numbers}.isdisjoint(PLATFORM_KEYS)


def _case(group: _Group, mode: str, part: Any, make: Any) -> Case:
    """The case of a chunk of a group, whose numbers are columns."""
    request = group.words | {"mode": mode} | {key: _thin(column[part]) for key, column in group.numbers.items()}
    shapes: list[ModelSpec] = []
    if make is not None and group.codes is not None:
        codes = group.codes[part]
        taken: dict[int, Any] = {}

        def take(column: Column) -> Any:
            if id(column) not in taken:
                taken[id(column)] = _thin(column[codes])
            return taken[id(column)]

        request["model"], *shapes = make(take)
    case = read_case(request)
    if make is not None:
        case = replace(case, shapes=tuple(shapes))
    return replace(case, cluster=bare(case.cluster), profile=bare(case.profile))


def _fewest(group: _Group, mode: str, make: Any) -> Column | None:
    """The fewest devices that hold each case, found once for cases that differ in nothing it depends on; None: not here."""
    ids = np.zeros(group.rows, dtype=np.int64)
    if group.codes is not None:
        ids = _refined(ids, group.codes)
    for key in ("seq_len", "lora_rank", "devices", "nodes", "dp", "tp", "pp", "cp", "params"):
        # A layout matters where it says how many devices there are, and these are less than a node.
        counts = "devices" in group.numbers or "nodes" in group.words or "devices" in group.words
        if key in group.numbers and not (counts and key in ("dp", "tp", "pp", "cp")):
            ids = _refined(ids, _coded(group.numbers[key]))
    ids = _densely(ids)
    first = np.empty(int(ids.max()) + 1, dtype=np.int64)
    first[ids[::-1]] = np.arange(len(ids) - 1, -1, -1)
    if len(first) * 4 > group.rows:
        return None
    try:
        with noting():
            case = _case(group, mode, first, make)
            workload, _ = read_workload(case)
            weights = weights_of(lower(case.model, Tokens()))
            fewest = case_fewest(case, case.model, weights, workload)
    except CapacityError:
        return None
    held = np.nan if fewest is None else fewest
    return np.broadcast_to(np.asarray(held, dtype=np.float64), (len(first),))[ids]


def _price_singly(group: _Group, mode: str, found: _Found) -> None:
    """One section of the answers of a group whose rows cannot be columns: each different case once."""
    known: dict[tuple[Any, ...], dict[str, Any] | str] = {}
    columns = dict(group.numbers)
    for row, where in enumerate(group.where):
        key = tuple(float(column[row]) for column in columns.values())
        if group.codes is not None:
            key = (*key, int(group.codes[row]))
        if key not in known:
            request = group.words | {"mode": mode} | {name: float(column[row]) for name, column in columns.items()}
            others: list[ModelSpec] = []
            if group.codes is not None:
                request["model"], *others = group.models[int(group.codes[row])]
            try:
                known[key] = section_values(request, mode, tuple(others), intervals=found.intervals)
            except CapacityError as error:
                known[key] = str(error)
            found.singly += 1
        values = known[key]
        if isinstance(values, str):
            _refuse(found, np.array([where]), values)
            continue
        for name, value in values.items():
            found.put(where, name, value)


def section_values(
    request: dict[str, Any], mode: str, shapes: tuple[ModelSpec, ...] = (), *, intervals: bool = False
) -> dict[str, Any]:
    """Every quantity of one section of one case by its full name, and whether it fits. shapes: other models it may be."""
    case = read_case(request)
    if shapes or not intervals:
        case = replace(case, shapes=shapes)
    beside: dict[str, Any] = {}
    if mode in TRAINING_MODES:
        workload, devices = read_workload(case)
        run, told = priced(case, workload, devices)
        ends = _ends(with_ranges(case, workload, devices, run, told)[0]) if intervals else {}
        values = run_values(run, told) | ends | {"fits": run.fits}
        if case.on_platform:
            from capacity.estimators.platform import platform_values

            beside = {f"platform.{name}": value for name, value in platform_values(case).items()}
    else:
        from capacity.estimators.serving import serving_section

        section, _ = serving_section(case, alone=True)
        values = {name: quantity.mid for name, quantity in section.quantities.items()}
        for kind in ("memory", "time"):
            values |= {f"{kind}.{name}": part for name, part in section.breakdowns[kind].items()}
        values |= (_ends(section.quantities) if intervals else {}) | {"fits": bool(section.fits)}
    return {f"{mode}.{name}": value for name, value in values.items()} | beside


def _coded(numbers: Column) -> Column:
    """A code for each different number of a column."""
    if (numbers == numbers[0]).all():
        return np.zeros(len(numbers), dtype=np.int64)
    return np.unique(numbers, return_inverse=True)[1]


def _refuse(found: _Found, where: Column, text: str) -> None:
    """Give rows that have no reason yet this one."""
    open_rows = where[found.errors[where] == None]  # noqa: E711 - element by element
    found.errors[open_rows] = text


def _note(found: _Found, where: Column, refused: Refused) -> None:
    """Give the rows that were refused their reasons, the first of each."""
    for condition, message in refused:
        for index in np.flatnonzero(condition):
            if found.errors[where[index]] is None:
                found.errors[where[index]] = message(partial(at, index=int(index)))


def _thin(column: Column) -> Any:
    """A column, or the one number in all its rows."""
    first = column[0]
    return at(column, 0) if (column == first).all() else column


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


def _refined(ids: Column, codes: Column) -> Column:
    """Groups cut further by a code of their rows, from -1 on; numbered densely, so that they never overflow."""
    if not len(codes) or (codes == codes[0]).all():
        return ids
    joined = ids * (int(codes.max()) + 2) + (codes.astype(np.int64) + 1)
    return _densely(joined)


def _densely(codes: Column) -> Column:
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
