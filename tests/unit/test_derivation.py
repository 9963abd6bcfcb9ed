"""A derivation shows the running formula, the numbers put in, and where each is from."""

import sys

import pytest
from formulary import formulas

from capacity import ops
from capacity.derivation import expression, latex, render, unit_of
from capacity.formula import Call, Formula, Sourced, Traced, bind, ledger, scaled, total
from capacity.formulas.collectives import ring_time_s
from capacity.formulas.flops import rule_of_thumb_training_flop
from capacity.formulas.memory import gradient_bytes, optimizer_bytes, weight_bytes
from capacity.formulas.recurrence import step_state_traffic_bytes
from capacity.formulas.scaling import compute_optimal_tokens

FORMULAS = formulas()

# Formulas whose body cannot be run on symbols, each with the reason.
NOT_SYMBOLIC: dict[str, str] = {}


def made_up(function, unit="1", cite=""):
    """A formula outside the registry, which only the package's own belong to."""
    return Formula(function, unit, "x", cite)


def traced(entry, **inputs):
    with ledger():
        value = entry.function(**inputs)
    return Traced(float(value), Call(entry, bind(entry, (), inputs), float(value)))


@pytest.mark.parametrize("name", sorted(set(FORMULAS) - set(NOT_SYMBOLIC)))
def test_every_formula_prints_itself(name):
    entry = FORMULAS[name]
    text = expression(entry)
    assert "\n" not in text
    for parameter in entry.parameters:
        assert parameter in text, f"{parameter} is not used by {name}"
    assert latex(entry).startswith(f"{entry.symbol} = ")


def evaluate(text, inputs, nested):
    """The value of an expression's text, as a reader would work it out."""
    body, _, parts = text.partition(" where ")
    names = (
        dict(inputs)
        | {name: lambda *_, value=value: value for name, value in nested.items()}
        | {"min": min, "max": max, "ceil": ops.ceil, "log": ops.log, "exp": ops.exp}
    )
    for part in split(parts):
        name, _, meaning = part.partition(" = ")
        names[name] = eval(meaning.replace("·", "*").replace("^", "**"), {}, names)
    return eval(body.replace("·", "*").replace("^", "**"), {}, names)


def split(parts):
    """Parts at commas outside brackets."""
    found, level = [""], 0
    for i, letter in enumerate(parts):
        level += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and level == 0:
            found.append("")
        elif not (letter == " " and parts[i - 1] == "," and level == 0):
            found[-1] += letter
    return [part for part in found if part]


@pytest.mark.parametrize("name", sorted(name for name in FORMULAS if name not in NOT_SYMBOLIC))
def test_what_is_printed_is_what_is_computed(name):
    entry = FORMULAS[name]
    inputs = {key: float(entry.defaults.get(key, 3.0 + 0.7 * i)) for i, key in enumerate(entry.parameters)}
    nested = {key: float(value) for key, value in nested_values(entry, inputs).items()}
    assert evaluate(expression(entry), inputs, nested) == pytest.approx(entry.function(**inputs), rel=1e-9)


def nested_values(entry, inputs):
    from capacity.derivation import nested

    return dict(nested(Call(entry, inputs, 0.0)))


def test_expression_keeps_the_authors_order_and_names():
    def layered(tokens, width, ratio=4.0):
        """Documented."""
        inner = width * ratio
        spare = ops.maximum(tokens - 1.0, 0.0)
        return ops.where(spare > 2.0, tokens * inner**2.0 / (width + 1.0), 0.0 * inner) - inner

    assert expression(made_up(layered)) == (
        "(tokens · inner^2 / (width + 1) if spare > 2 else 0) - inner"
        " where inner = width · ratio, spare = max(0, tokens - 1)"
    )


def test_expression_without_sympy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sympy", None)
    entry = FORMULAS["ring_time_s"]
    text = expression(entry)
    assert text.startswith("where(ranks > 1, base_latency_s + steps * latency_s + moved / bytes_per_s, ")
    assert "where steps = passes * (ranks - 1)" in text
    with ledger():
        value = weight_bytes(7e9, 2.0)
    assert "= 7.00B * 2 byte / 1" in render(value)


def test_a_chain_of_formulas():
    with ledger():
        params = Sourced(7e9, "params", "--params 7e9", "user")
        flop = rule_of_thumb_training_flop(params, compute_optimal_tokens(params))
    assert render(flop).splitlines() == [
        "rule_of_thumb_training_flop = 5.88 ZFLOP   [kaplan2020]",
        "│  = params · tokens · flop_per_param_token",
        "│  = 7.00B · 140B · 6 FLOP",
        "├─ params                7.00B   user: --params 7e9",
        "├─ flop_per_param_token  6 FLOP  in the formula",
        "└─ tokens = 140B   [compute_optimal_tokens, hoffmann2022]",
        "   │  = params · tokens_per_param",
        "   │  = 7.00B · 20",
        "   ├─ params            7.00B  user: --params 7e9",
        "   └─ tokens_per_param  20     in the formula",
    ]


def memory():
    params = Sourced(7e9, "params", "--params 7e9", "user")
    return total({
        "gradients": gradient_bytes(params, 2.0),
        "optimizer": optimizer_bytes(params, 12.0),
        "weights": weight_bytes(params, 2.0),
        "runtime": Sourced(1.2e9, "runtime_bytes", "measured", "default"),
    })  # fmt: skip


def test_a_total_is_a_table_of_terms_by_size():
    with ledger():
        value = memory()
    lines = render(value, "memory").splitlines()
    assert lines[:5] == [
        "memory = 113 GB",
        "├─ optimizer  84.0 GB   74.2 %",
        "├─ gradients  14.0 GB   12.4 %",
        "├─ weights    14.0 GB   12.4 %",
        "├─ runtime    1.20 GB    1.1 %  default: measured",
    ]
    assert "├─ optimizer = 84.0 GB   [optimizer_bytes, rajbhandari2020]" in lines
    assert unit_of(value) == "byte"


def test_depth_and_repetition():
    with ledger():
        once = memory()
        value = total({"training": once, "again": once})
    shallow = render(value, depth=1)
    assert "optimizer" not in shallow
    deep = render(value, depth=3)
    assert deep.count("= 7.00B · 12 byte / 1") == 1
    assert "again = 113 GB   (derived above)" in deep


def test_formulas_inside_formulas_are_shown():
    with ledger():
        value = step_state_traffic_bytes(4.0, 32.0, 128.0, 128.0, 4096.0, 4.0, 4.0, 2.0)
    text = render(value)
    assert "where state = state_bytes(sequences, heads, key_size, value_size," in text
    assert "= 2 · (8.39 MB + 98.3 kB)" in text
    assert "├─ state_bytes = 8.39 MB" in text
    assert "= 4 · 4096 · (4 - 1) · 2 byte" in text


def test_two_calls_of_one_formula_are_told_apart():
    def both(a_bytes, b_bytes):
        """Documented."""
        return weight_bytes(2.0, a_bytes) + weight_bytes(3.0, b_bytes)

    text = render(traced(made_up(both, "byte"), a_bytes=5.0, b_bytes=7.0), "both")
    assert "= weight_bytes(2, a_bytes) + weight_bytes_2(3, b_bytes)" in text
    assert "= 10 byte + 21 byte" in text


def test_scaling_takes_the_unit_of_what_it_scales():
    with ledger():
        value = scaled(weight_bytes(7e9, 2.0), 0.5)
    assert unit_of(value) == "byte"
    assert render(value, "half", depth=1).splitlines()[:3] == [
        "half = 7.00 GB",
        "│  = 14.0 GB · 0.500",
        "├─ times  0.500",
    ]
    assert "└─ weight_bytes = 14.0 GB" in render(value, "half", depth=1)  # a repetition takes no level


def test_repetition_of_once_is_not_told():
    with ledger():
        value = scaled(weight_bytes(7e9, 2.0), 1.0)
    assert render(value, "once").splitlines()[0] == "once = 14.0 GB   [weight_bytes]"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_the_width(width):
    with ledger():
        time = ring_time_s(1.4e9, 8.0, 2.0, Sourced(450e9, "link", "a datasheet " * 20, "catalogue"), 2e-6)
        values = [memory(), time, total({"ring": time, "point": 1.0})]
    for value in values:
        assert all(len(line) <= width for line in render(value, width=width).splitlines())


def test_plain_text_is_ascii():
    with ledger():
        value = memory()
    assert render(value, unicode=False).isascii()


def test_a_number_without_a_history_is_a_leaf():
    assert render(700.0, "tdp_w") == "tdp_w = 700 W"
    assert (
        render(Sourced(80e9, "memory_bytes", "datasheet", "catalogue"))
        == "memory_bytes = 80.0 GB   catalogue: datasheet"
    )
