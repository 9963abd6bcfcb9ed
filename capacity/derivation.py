"""How a number came about, as text: the formula, the numbers put in, where each is from.

`expression` prints the body of a formula from the running code: the function is called on SymPy
symbols, so the text cannot drift from what is computed. Without SymPy the source itself is
printed. `render` prints the whole tree behind a value that was computed while a ledger was open.
"""

from __future__ import annotations

import sys
from math import isfinite
from typing import TYPE_CHECKING, Any

from capacity import ops
from capacity.formula import Call, Formula, Sourced, Traced, bind, ledger, recording
from capacity.quantities import format as show
from capacity.quantities import unit_in_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

WIDTH = 80
_NO_BREAK = "\u00a0"  # keeps a number and its unit on one line while text is wrapped


def expression(formula: Formula) -> str:
    """The formula's body on one line, in the author's order: "m · n · k · flop_per_mac".

    Names the author gave to parts are kept and told after "where".
    """
    body, parts = _written(formula)("·")
    return body + (" where " + ", ".join(parts) if parts else "")


def latex(formula: Formula) -> str:
    """The formula as a LaTeX equation, symbol = body; needs SymPy."""
    import sympy

    if keeps_terms(formula):
        return f"{formula.symbol} = \\sum_i x_i"
    body, _ = symbolic(formula)
    words = {symbol: "\\mathit{" + symbol.name.replace("_", "\\_") + "}" for symbol in body.free_symbols}
    return f"{formula.symbol} = {sympy.latex(body.doit(), symbol_names=words)}"


def render(
    value: float, name: str = "", *, depth: int = 3, width: int = WIDTH, unicode: bool = True, unit: str = ""
) -> str:
    """The derivation of `value` as a tree of plain text, at most `width` columns wide.

    value: a result computed while a ledger was open; any other number is a leaf.
    depth: levels of formulas shown; what lies deeper shows its value only. unit: of the value,
    where neither a formula nor its name tells.
    """
    tree = _Tree(depth, width, unicode)
    return "\n".join(tree.lines(name or _name(value), value, unit))


def _name(value: float) -> str:
    if isinstance(value, Traced):
        return value.call.formula.name
    return value.label if isinstance(value, Sourced) else "value"


def unit_of(value: float, name: str = "") -> str:
    """The unit of a value: its formula's, that of what a sum adds up, or the one its name carries."""
    if not isinstance(value, Traced):
        named = unit_in_name(name)
        return unit_in_name(value.label) if named == "1" and isinstance(value, Sourced) else named
    if value.call.formula.unit != "same":
        return value.call.formula.unit
    for key, part in _parts(value.call):
        unit = unit_of(part, key)
        if unit != "1":
            return unit
    return unit_in_name(name)


def keeps_terms(formula: Formula) -> bool:
    """Whether a formula is the sum of whatever named terms it is given."""
    return formula.unit == "same" and formula.parameters == ("terms",)


def _parts(call: Call) -> list[tuple[str, Any]]:
    """The named numbers a call was given: its inputs, or the terms of a sum."""
    if keeps_terms(call.formula):
        return list(call.inputs["terms"].items())
    return list(call.inputs.items())


class _Tree:
    """Prints one tree; remembers what it has shown, so that nothing is derived twice."""

    def __init__(self, depth: int, width: int, unicode: bool) -> None:
        self.depth = depth
        self.width = width
        self.times = "·" if unicode else "*"
        self.branch, self.last, self.stem, self.gap = (
            ("├─ ", "└─ ", "│  ", "   ") if unicode else ("|- ", "`- ", "|  ", "   ")
        )
        self.more = "…" if unicode else "..."
        self.shown: set[tuple[Any, ...]] = set()

    def lines(self, name: str, value: float, unit: str = "", level: int = 0, indent: int = 0) -> Iterator[str]:
        """The lines of one value; the first is its own, the others hang below it."""
        value = unscaled(value)
        unit = unit or unit_of(value, name)
        head = f"{name} = {quantity(value, unit)}"
        if not isinstance(value, Traced):
            yield from self._wrapped(head + origin(value, ""), indent)
            return
        call = value.call
        key = (call.formula.name, *((k, _key(v)) for k, v in call.inputs.items()))
        about = "" if call.formula.name == name or call.formula.unit == "same" else call.formula.name
        about = ", ".join(filter(None, (about, call.formula.cite)))
        head += f"   [{about}]" if about else ""
        if key in self.shown:
            yield from self._wrapped(f"{head}   (derived above)", indent)
            return
        if level >= self.depth:
            yield from self._wrapped(f"{head}   {self.more}", indent)
            return
        self.shown.add(key)
        yield from self._wrapped(head, indent)
        if keeps_terms(call.formula):
            yield from self._terms(call, unit, level, indent)
        elif call.formula.name == "scaled":
            yield from self._scaled(call, unit, level, indent)
        else:
            yield from self._call(call, level, indent)

    def _scaled(self, call: Call, unit: str, level: int, indent: int) -> Iterator[str]:
        """A repetition is told in one line and takes no level of its own."""
        each, times = call.inputs["each"], call.inputs["times"]
        yield f"{self.stem}= {quantity(each, unit)} {self.times} {quantity(times, '1')}"
        parts = {"each" if not isinstance(each, Traced) or each.call.formula.unit == "same" else _name(each): each}
        parts["times" if not isinstance(times, Traced) else _name(times)] = times
        units = dict(zip(parts, (unit, "1"), strict=True))
        yield from self._children(self._leaves(parts, units, {}), _calls(parts), units, level - 1, indent)

    def _call(self, call: Call, level: int, indent: int) -> Iterator[str]:
        parts = call.inputs | dict(nested(call))
        units = {key: unit_of(part, key) for key, part in parts.items()}
        body, named = _written(call.formula)(self.times)
        texts = {key: quantity(part, units[key], factor=True) for key, part in parts.items()}
        numbers = substituted(call.formula)(texts, self.times)
        rule = self.stem if parts else self.gap
        for line in self._wrapped(f"= {body}", indent + 3):
            yield rule + line
        for i, part in enumerate(named):
            for line in self._wrapped(("  where " if i == 0 else " " * 8) + part, indent + 3):
                yield rule + line
        for line in self._wrapped(f"= {numbers}", indent + 3):
            yield rule + line
        leaves = self._leaves(parts, units, call.formula.defaults)
        yield from self._children(leaves, _calls(parts), units, level, indent)

    @staticmethod
    def _leaves(parts: dict[str, Any], units: dict[str, str], defaults: dict[str, Any]) -> list[str]:
        rows = [
            (
                key,
                quantity(part, units[key]),
                origin(part, "in the formula" if defaults.get(key) == part else "").strip(),
            )
            for key, part in parts.items()
            if not isinstance(part, Traced)
        ]
        return _table(rows)

    def _terms(self, call: Call, unit: str, level: int, indent: int) -> Iterator[str]:
        terms = sorted(call.inputs["terms"].items(), key=lambda term: -abs(term[1]))
        rows = []
        for key, part in terms:
            share = f"{100 * part / call.value:.1f} %" if call.value and isfinite(call.value) else ""
            rows.append((key, quantity(part, unit), share.rjust(7), origin(part, "").strip()))
        calls = {key: part for key, part in _calls(dict(terms)).items() if part and level + 1 < self.depth}
        yield from self._children(_table(rows), calls, dict.fromkeys(calls, unit), level, indent)

    def _children(
        self, rows: list[str], calls: dict[str, float], units: dict[str, str], level: int, indent: int
    ) -> Iterator[str]:
        for i, row in enumerate(rows):
            yield from self._hang(self._wrapped(row, indent + 3), last=i == len(rows) - 1 and not calls)
        for i, (key, part) in enumerate(calls.items()):
            yield from self._hang(self.lines(key, part, units[key], level + 1, indent + 3), last=i == len(calls) - 1)

    def _hang(self, lines: Iterator[str], *, last: bool) -> Iterator[str]:
        for i, line in enumerate(lines):
            if i == 0:
                yield (self.last if last else self.branch) + line
            else:
                yield (self.gap if last else self.stem) + line

    def _wrapped(self, text: str, indent: int) -> Iterator[str]:
        """Lines that fit what the indent leaves, broken between words, the later ones set in."""
        room = max(self.width - indent, 30)
        if len(text) <= room:
            yield text.replace(_NO_BREAK, " ")
            return
        import textwrap

        lead = next((lead for start, lead in (("= ", 2), ("  where ", 10), (" " * 8, 10)) if text.startswith(start)), 4)
        lines = textwrap.wrap(text, room, subsequent_indent=" " * lead, break_on_hyphens=False)
        yield from (line.replace(_NO_BREAK, " ") for line in lines)


def _calls(parts: dict[str, Any]) -> dict[str, float]:
    return {key: part for key, part in parts.items() if isinstance(part, Traced)}


def unscaled(value: float) -> float:
    """A value behind repetitions of once, which explain nothing."""
    while isinstance(value, Traced) and value.call.formula.name == "scaled" and value.call.inputs["times"] == 1.0:
        value = value.call.inputs["each"]
    return value


def _key(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


def quantity(value: Any, unit: str, *, factor: bool = False) -> str:
    """A number with its unit; as a factor of a product a rate stands in brackets."""
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        return str(value)
    text = show(value, unit)
    if not factor:
        return text
    whole = text.replace(" ", _NO_BREAK)
    return f"({whole})" if "/" in text or text.startswith("-") else whole


def origin(value: Any, otherwise: str) -> str:
    """Where a number is from, after a gap; `otherwise` where it does not say."""
    if not isinstance(value, Sourced):
        return f"   {otherwise}" if otherwise else ""
    return f"   {value.tag}" + (f": {value.source}" if value.source else "")


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows with their columns aligned; the last is left ragged."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def nested(call: Call) -> list[tuple[str, Traced]]:
    """The formulas a formula's body calls, with their values: it is pure, so it is simply run again."""
    calls: list[tuple[str, Traced]] = []

    def collect(entry: Formula, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with ledger():
            value = float(entry.function(*args, **kwargs))
        traced = Traced(value, Call(entry, bind(entry, args, kwargs), value))
        calls.append((_nested_name(entry, len(calls), [name for name, _ in calls]), traced))
        return traced

    with recording(collect):
        call.formula.function(**call.inputs)
    return calls


def _nested_name(entry: Formula, position: int, known: list[str]) -> str:
    """The name of a nested call; the second of a kind is told apart by its place among all."""
    return entry.name if entry.name not in known else f"{entry.name}_{position + 1}"


# ---- the body of a formula as text -----------------------------------------------------------------


def _written(formula: Formula) -> Callable[[str], tuple[str, list[str]]]:
    """Prints the body as the author wrote it: the result, and the parts that have a name of their own."""
    if keeps_terms(formula):
        return lambda _times: ("sum of its terms", [])
    try:
        body, parts = symbolic(formula)
    except ImportError:
        lines = _source(formula)
        return lambda _times: (lines({})[-1], lines({})[:-1])
    named = {expression: name for name, expression in parts.items()}

    def text(times: str) -> tuple[str, list[str]]:
        printer = _Printer({}, times, named)
        return printer.text(body), [f"{name} = {printer.part(expression)}" for name, expression in parts.items()]

    return text


def substituted(formula: Formula) -> Callable[[Mapping[str, str], str], str]:
    """Prints the body with every name replaced by a text."""
    try:
        body, _ = symbolic(formula)
    except ImportError:
        lines = _source(formula)
        return lambda names, _times: "; ".join(lines(names))
    return lambda names, times: _Printer(names, times, {}).text(body)


def symbolic(formula: Formula) -> tuple[Any, dict[str, Any]]:
    """The body run on SymPy symbols, left as it was written, and the named parts it was made of."""
    import sympy

    ops.register(sympy.Basic, _Symbols)
    known: list[str] = []
    parts: dict[str, Any] = {}

    def nest(entry: Formula, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = _nested_name(entry, len(known), known)
        known.append(name)
        return sympy.Function(name, real=True)(*args, *kwargs.values())

    def watch(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "return" and frame.f_code is formula.function.__code__:
            parts.update(frame.f_locals)

    symbols = {name: sympy.Symbol(name, real=True) for name in formula.parameters}
    # A profiler sees the function's locals when it returns: the names the author gave to its parts.
    outer = sys.getprofile()
    with recording(nest), sympy.evaluate(False):
        sys.setprofile(watch)
        try:
            result = sympy.sympify(formula.function(**symbols))
        finally:
            sys.setprofile(outer)
    named = {
        name: part
        for name, part in parts.items()
        if name not in symbols and isinstance(part, sympy.Basic) and part.args and part != result
    }
    # A part comes after the parts it is made of.
    inside = {name: sum(part.has(other) for other in named.values()) for name, part in named.items()}
    return result, {name: named[name] for name in sorted(named, key=inside.__getitem__)}


class _Symbols:
    """What `ops` does to SymPy expressions."""

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        import sympy

        return sympy.Max(a, b, evaluate=False)

    @staticmethod
    def minimum(a: Any, b: Any) -> Any:
        import sympy

        return sympy.Min(a, b, evaluate=False)

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        import sympy

        holds = condition if isinstance(condition, sympy.logic.boolalg.Boolean) else sympy.Ne(condition, 0)
        return sympy.Piecewise((a, holds), (b, True), evaluate=False)

    @staticmethod
    def ceil(a: Any) -> Any:
        import sympy

        return sympy.ceiling(a, evaluate=False)

    @staticmethod
    def log(a: Any) -> Any:
        import sympy

        return sympy.log(a, evaluate=False)

    @staticmethod
    def exp(a: Any) -> Any:
        import sympy

        return sympy.exp(a, evaluate=False)


_CHOICE, _SUM, _PRODUCT, _POWER, _ATOM = range(5)
_RELATIONS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "==": "==", "!=": "!="}


class _Printer:
    """SymPy expressions on one line, in the order they were written."""

    def __init__(self, names: Mapping[str, str], times: str, parts: Mapping[Any, str]) -> None:
        self.names = names
        self.times = times
        self.parts = parts

    def part(self, node: Any) -> str:
        """The text of a named part itself, not its name."""
        return self._own_text(node)[0]

    def text(self, node: Any, around: int = _CHOICE) -> str:
        """The text of a node, in brackets if what stands around it binds tighter."""
        text, binds = self._text(node)
        return f"({text})" if binds < around else text

    def _text(self, node: Any) -> tuple[str, int]:
        return (self.parts[node], _ATOM) if node in self.parts else self._own_text(node)

    def _own_text(self, node: Any) -> tuple[str, int]:
        if node.is_Symbol:
            return self.names.get(node.name, node.name), _ATOM
        if node.is_Function and node.func.__name__ in self.names:
            return self.names[node.func.__name__], _ATOM  # the value of a nested formula
        if node.is_Number:
            return f"{float(node):.10g}", _ATOM if node >= 0 else _SUM
        if node.is_Add:
            return self._sum(self._flat(node)), _SUM
        if node.is_Mul:
            return self._product(self._flat(node)), _PRODUCT
        if node.is_Pow:
            base, power = node.args
            if _negative_one(power):
                return f"1 / {self.text(base, _POWER)}", _PRODUCT
            return f"{self._base(base)}^{self.text(power, _ATOM)}", _POWER
        if node.is_Relational:
            left, right = (self.text(side, _SUM) for side in node.args)
            return f"{left} {_RELATIONS[node.rel_op]} {right}", _CHOICE
        if node.is_Piecewise:
            (first, condition), (second, _) = node.args
            return f"{self.text(first, _SUM)} if {self._condition(condition)} else {self.text(second, _SUM)}", _CHOICE
        name = {"Max": "max", "Min": "min", "ceiling": "ceil"}.get(type(node).__name__, type(node).__name__)
        return f"{name}({', '.join(self.text(argument) for argument in node.args)})", _ATOM

    def _condition(self, node: Any) -> str:
        # `where(flag, ...)` was written for flag != 0.
        flag = node.is_Relational and node.rel_op == "!=" and node.args[1] == 0
        return self.text(node.args[0] if flag else node, _SUM if flag else _CHOICE)

    def _base(self, base: Any) -> str:
        text = self.text(base, _ATOM)
        # 3 ms^2 would be read as 3 (ms)^2.
        return f"({text})" if _NO_BREAK in text and not text.endswith(")") else text

    def _sum(self, terms: list[Any]) -> str:
        text = self.text(terms[0], _SUM)
        for term in terms[1:]:
            negative = self._negated(term)
            if negative is not None:
                text += f" - {self.text(negative, _PRODUCT)}"
            else:
                text += f" + {self.text(term, _PRODUCT)}"
        return text

    def _negated(self, term: Any) -> Any:
        """What a term subtracts, if it does."""
        if term.is_Number and term < 0:
            return -term
        if not term.is_Mul or term in self.parts or not term.args[0].is_Number or term.args[0] >= 0:
            return None
        first, *others = term.args
        rest = others if first == -1 and others else [-first, *others]
        return rest[0] if len(rest) == 1 else term.func(*rest, evaluate=False)

    def _flat(self, node: Any) -> list[Any]:
        """The terms of a sum of sums, or the factors of a product of products; named parts stay whole."""
        return [
            part
            for child in node.args
            for part in (self._flat(child) if child.func is node.func and child not in self.parts else [child])
        ]

    def _product(self, factors: list[Any]) -> str:
        text = ""
        if any(factor.is_Number and float(factor) == 0 for factor in factors):
            return "0"  # written to give a nought its unit
        for factor in factors:
            if factor in self.parts:
                text = f"{text} {self.times} {self.parts[factor]}" if text else self.parts[factor]
            elif factor.is_Pow and _negative_one(factor.args[1]):
                text = f"{text or '1'} / {self.text(factor.args[0], _POWER)}"
            elif factor.is_Rational and not factor.is_Integer and factor.p == 1:
                text = f"{text or '1'} / {factor.q}"
            else:
                piece = self.text(factor, _PRODUCT)
                text = f"{text} {self.times} {piece}" if text else piece
        return text


def _negative_one(power: Any) -> bool:
    return bool(power.is_Number and power == -1)


def _source(formula: Formula) -> Callable[[Mapping[str, str]], list[str]]:
    """The body from its source, for want of SymPy: assignments in order, then the result."""
    import ast
    import inspect
    import textwrap

    function = ast.parse(textwrap.dedent(inspect.getsource(formula.function))).body[0]
    statements = function.body if isinstance(function, ast.FunctionDef) else []
    written = [ast.unparse(statement) for statement in statements]
    if isinstance(function, ast.FunctionDef) and ast.get_docstring(function) is not None:
        del written[0]

    def lines(names: Mapping[str, str]) -> list[str]:
        class Substitute(ast.NodeTransformer):
            def visit_Name(self, node: ast.Name) -> ast.Name:
                return ast.Name(names.get(node.id, node.id), node.ctx)

            def visit_Attribute(self, node: ast.Attribute) -> ast.Name:
                return ast.Name(node.attr, node.ctx)

            def visit_Constant(self, node: ast.Constant) -> ast.AST:
                return ast.Name(f"{node.value:.10g}") if isinstance(node.value, float) else node

        parsed = (ast.parse(line).body[0] for line in written)
        return [ast.unparse(Substitute().visit(line)).removeprefix("return ") for line in parsed]

    return lines
