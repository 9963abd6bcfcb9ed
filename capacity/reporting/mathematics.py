"""Formulas as trees that MathML and typst are both set from, made from the code that runs.

A node is plain data: {"k": kind, "t": text, "of": [nodes]}. Kinds: id (a name), num, op (an operator), row, frac, pow,
sub, paren, call (a function with arguments), ceil, cases (value, condition, otherwise), sum.
"""

from __future__ import annotations

import re
from typing import Any

from capacity.derivation import keeps_terms, symbolic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.formula import Formula

Node = dict[str, Any]
_GREEK = {"Sigma": "Σ", "times": "×", "beta": "β", "eta": "η", "tau": "τ"}
_TIMES = "·"
_LETTERS = ("_s", "_w", "_j", "_g")


def symbol(text: str) -> Node:
    r"""The tree of a formula's symbol: `F_attn^{vis}`, `\bar K`, `\eta_run`."""
    found = re.fullmatch(r"(?:\\bar )?\\?(?P<base>[A-Za-z]+)(?:_\{?(?P<sub>\w+)\}?)?(?:\^\{?(?P<sup>[\w*]+)\}?)?", text)
    if found is None:
        return _id(text)
    base = _id(_GREEK.get(found["base"], found["base"]))
    if text.startswith("\\bar "):
        base = {"k": "bar", "of": [base]}
    if found["sub"]:
        base = {"k": "sub", "of": [base, _id(found["sub"])]}
    if found["sup"]:
        base = {"k": "pow", "of": [base, _id(found["sup"])]}
    return base


def body(formula: Formula) -> tuple[Node, list[Node]]:
    """The right-hand side in the author's order, and an equation for each part that the author named."""
    if keeps_terms(formula):
        return {"k": "sum", "of": [{"k": "sub", "of": [_id("x"), _id("i")]}]}, []
    result, parts = symbolic(formula)
    setter = _Setter({expression: name for name, expression in parts.items()})
    equations = [_row([_id(spoken(name)), _op("="), setter.own(part)]) for name, part in parts.items()]
    return setter.node(result), equations


def _id(text: str) -> Node:
    return {"k": "id", "t": text}


def _op(text: str) -> Node:
    return {"k": "op", "t": text}


def _row(nodes: list[Node]) -> Node:
    return nodes[0] if len(nodes) == 1 else {"k": "row", "of": nodes}


def spoken(name: str) -> str:
    """A parameter's name as words; seconds, watts and the like go without their letter, which its value shows."""
    bare = name.rpartition("_")[0] if name.endswith(_LETTERS) and not name.endswith("_per_s") else name
    return (bare or name).replace("_", " ")


class _Setter:
    """SymPy expressions, left as they were written, as trees."""

    def __init__(self, parts: dict[Any, str]) -> None:
        self.parts = parts

    def node(self, what: Any) -> Node:
        return _id(spoken(self.parts[what])) if what in self.parts else self.own(what)

    def own(self, what: Any) -> Node:
        if what.is_Symbol:
            return _id(spoken(what.name))
        if what.is_Number:
            return {"k": "num", "t": f"{float(what):.10g}".replace("-", "−")}
        if what.is_Add:
            return self._sum(what)
        if what.is_Mul:
            return self._product(self._flat(what))
        if what.is_Pow:
            base, power = what.args
            if power.is_Number and power == -1:
                return {"k": "frac", "of": [{"k": "num", "t": "1"}, self.node(base)]}
            return {"k": "pow", "of": [self._tight(base), self.node(power)]}
        if what.is_Relational:
            sign = {"<=": "≤", ">=": "≥", "==": "=", "!=": "≠"}.get(what.rel_op, what.rel_op)
            return _row([self.node(what.args[0]), _op(sign), self.node(what.args[1])])
        if what.is_Piecewise:
            (first, condition), (second, _) = what.args
            return {"k": "cases", "of": [self.node(first), self.node(condition), self.node(second)]}
        name = type(what).__name__
        arguments = [self.node(argument) for argument in what.args]
        if name == "ceiling":
            return {"k": "ceil", "of": arguments}
        return {"k": "call", "t": spoken({"Max": "max", "Min": "min"}.get(name, name)), "of": arguments}

    def _flat(self, what: Any) -> list[Any]:
        return [
            part
            for child in what.args
            for part in (self._flat(child) if child.func is what.func and child not in self.parts else [child])
        ]

    def _sum(self, what: Any) -> Node:
        nodes: list[Node] = []
        for term in self._flat(what):
            negative, positive = self._split(term)
            if nodes or negative:
                nodes.append(_op("−" if negative else "+"))
            nodes.append(positive)
        return _row(nodes)

    def _split(self, term: Any) -> tuple[bool, Node]:
        """Whether a term is taken away, and the term without its sign."""
        if term in self.parts:
            return False, self.node(term)
        if term.is_Number and term < 0:
            return True, self.node(-term)
        factors = self._flat(term) if term.is_Mul else [term]
        if term.is_Mul and factors[0].is_Number and factors[0] < 0:
            rest = factors[1:] if factors[0] == -1 and len(factors) > 1 else [-factors[0], *factors[1:]]
            return True, self._product(rest)
        return False, self.node(term)

    def _product(self, factors: list[Any]) -> Node:
        """Factors over divisors, as a fraction where there are any."""
        if any(factor.is_Number and float(factor) == 0 for factor in factors):
            return {"k": "num", "t": "0"}
        above: list[Node] = []
        below: list[Node] = []
        for factor in factors:
            if factor not in self.parts and factor.is_Pow and factor.args[1].is_Number and factor.args[1] == -1:
                below.append(self._factor(factor.args[0]))
            elif factor.is_Rational and not factor.is_Integer and factor.p == 1:
                below.append({"k": "num", "t": str(factor.q)})
            else:
                above.append(self._factor(factor))
        if not below:
            return self._times(above)
        alone = len(above) == 1 and above[0]["k"] == "paren"
        top = above[0]["of"][0] if alone else self._times(above) if above else {"k": "num", "t": "1"}
        bottom = below[0]["of"][0] if len(below) == 1 and below[0]["k"] == "paren" else self._times(below)
        return {"k": "frac", "of": [top, bottom]}

    @staticmethod
    def _times(nodes: list[Node]) -> Node:
        joined = [nodes[0]]
        for node in nodes[1:]:
            joined += [_op(_TIMES), node]
        return _row(joined)

    def _factor(self, what: Any) -> Node:
        node = self.node(what)
        loose = what not in self.parts and (what.is_Add or what.is_Relational or what.is_Piecewise)
        return {"k": "paren", "of": [node]} if loose or (what.is_Number and what < 0) else node

    def _tight(self, what: Any) -> Node:
        node = self.node(what)
        return node if node["k"] in ("id", "num", "call", "ceil") else {"k": "paren", "of": [node]}


def name(text: str) -> Node:
    """A name of the account, such as train.step_time, as one symbol."""
    return _id(spoken(text.rpartition(".")[2]))


SCALED: Node = _row([_id("each"), _op(_TIMES), _id("times")])
