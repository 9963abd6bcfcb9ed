"""Read and print quantities: the only place where a unit is converted.

A unit is a word ("byte", "FLOP", "s", "J", "W", "USD", "g", "Hz", "bit", "fraction", "1" for a
count, or a thing that is counted: "token", "request") or a rate of two ("byte/s", "USD/h",
"g/kWh", "FLOP/token"). Inside the package numbers are in exactly that unit. Reading is exact:
the text is taken as a ratio of whole numbers and rounded once. What could be read in two ways
(7B bytes, 80G, 80Gb of memory, 1,000) is refused, never guessed; GB is 10^9 and GiB 2^30, always.
"""

from __future__ import annotations

from math import isfinite

from capacity.errors import QuantityError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A factor is a ratio of whole numbers (a, b), so that no conversion rounds before the last step.
Ratio = tuple[int, int]
Factors = dict[str, Ratio]

_SI = {"k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "Z": 21, "Y": 24}
_COUNTS = {"K": 3, "M": 6, "B": 9, "T": 12}
_SMALL = {"m": 3, "u": 6, "µ": 6, "μ": 6, "n": 9, "p": 12}  # both code points of the micro sign
_IEC = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DAY = 86_400

MAX_TEXT = 64
_MAX_EXPONENT = 400  # beyond any float; keeps 10**exponent small


def _large(prefixes: str) -> Factors:
    return {prefix: (10 ** _SI[prefix], 1) for prefix in prefixes}


def _small(prefixes: str) -> Factors:
    return {prefix: (1, 10 ** _SMALL[prefix]) for prefix in prefixes}


def _words(names: str, factor: Ratio = (1, 1)) -> Factors:
    return dict.fromkeys(names.split(), factor)


_BINARY: Factors = {prefix: (1024 ** (i + 1), 1) for i, prefix in enumerate(_IEC)}

# For each kind of quantity: groups of spellings, and the prefixes that may stand before those of the group.
_KINDS: dict[str, tuple[tuple[Factors, Factors], ...]] = {
    "byte": ((_words("B byte bytes"), _large("kMGTPEZY") | {"K": (1000, 1)} | _BINARY),),
    "bit": ((_words("b bit bits"), _large("kMGTPE")),),
    "FLOP": ((_words("FLOP flop OP"), _large("kMGTPEZY")),),
    "s": (
        (_words("s"), _small("muµμnp")),
        (_words("sec second seconds"), {}),
        (_words("min minute minutes", (60, 1)), {}),
        (_words("h hr hour hours", (3600, 1)), {}),
        (_words("d day days", (_DAY, 1)), {}),
        (_words("week weeks", (7 * _DAY, 1)), {}),
        (_words("y year years", (1461 * _DAY, 4)), {}),  # 365.25 days
    ),
    "J": (({"J": (1, 1), "Wh": (3600, 1)}, _large("kMGTPE") | _small("muµμnp")),),
    "W": ((_words("W"), _large("kMGT") | _small("muµμ")),),
    "Hz": ((_words("Hz"), _large("kMGT")),),
    "g": ((_words("g gCO2 gCO2e"), _large("k") | _small("muµμ")), (_words("t tCO2 tCO2e", (10**6, 1)), _large("kMG"))),
    "USD": ((_words("USD $"), {}),),
    "fraction": ((_words("%", (1, 100)), {}),),
    "1": ((_words("token request sample sequence step device image element param parameter"), {}),),
}

_NAMES = {
    "1": "a count",
    "byte": "bytes",
    "bit": "bits",
    "FLOP": "FLOP",
    "s": "a time",
    "J": "an energy",
    "W": "a power",
    "Hz": "a frequency",
    "g": "a mass",
    "USD": "US dollars",
    "fraction": "a fraction",
}
_EXAMPLES = {
    "1": "7e9, 70M, 7B or 1.5T",
    "byte": "80GB or 80GiB",
    "bit": "16",
    "FLOP": "1e21FLOP or 5.9ZFLOP",
    "s": "5ms, 90min, 12h or 3d",
    "J": "3.6MJ or 2.5MWh",
    "W": "700W or 1.2MW",
    "Hz": "1.98GHz",
    "g": "450g, 0.4kg or 12t",
    "USD": "$2.50, 2.5USD or $1.2M",
    "fraction": "0.9 or 90%",
}


def parse(text: str, unit: str, *, name: str = "", positive: bool = False) -> float:
    """Read `text` as a quantity in `unit`; a bare number is taken to be in `unit` itself.

    name: where the text came from, put before the message. positive: refuse 0 and less.
    Raises QuantityError, in one line, for what cannot be read without guessing.
    """
    try:
        return _read(text, unit, positive)
    except QuantityError as error:
        if name:
            raise QuantityError(f"{name}: {error}") from None
        raise


def argument(unit: str, name: str = "", *, positive: bool = False) -> Callable[[str], float]:
    """A reader of quantities for argparse's `type=`, which shows the message as it is."""

    def read(text: str) -> float:
        try:
            return parse(text, unit, name=name, positive=positive)
        except QuantityError as error:
            from argparse import ArgumentTypeError

            raise ArgumentTypeError(str(error)) from None

    return read


# Of what was read before: a catalogue names the same few units over and over.
_factors: dict[tuple[str, str, bool], Ratio] = {}


def _read(text: str, unit: str, positive: bool) -> float:
    if len(text) > MAX_TEXT:
        raise QuantityError(f"{_shown(text)} is {len(text)} characters long: give a quantity like {_example(unit)}")
    stripped = text.strip(" ")
    dollar = stripped.startswith("$")
    number, rest = _split(stripped[dollar:])
    if not number:
        raise QuantityError(f"{_shown(text)} is not a quantity: give one like {_example(unit)}")
    if "," in rest:
        raise QuantityError(f"{_shown(text)}: a comma may group digits or mark decimals; write 1000, 1_000 or 1.5")
    if dollar and "$" in rest:
        raise QuantityError(f"{_shown(text)} names its unit twice: give one like {_example(unit)}")
    a, b = _digits(number, text)
    if rest or dollar:
        c, d = _factors.get((rest, unit, dollar)) or _factor(rest, unit, text, dollar)
        _factors[rest, unit, dollar] = c, d
        a, b = a * c, b * d
    try:
        value = a / b  # whole numbers divide to the nearest float, whatever their size
    except OverflowError:
        raise QuantityError(f"{_shown(text)} is too large for any estimate") from None
    if a and not value:
        raise QuantityError(f"{_shown(text)} is too small to tell from 0")
    if positive and value <= 0:
        raise QuantityError(f"{_shown(text)} is not positive: give more than 0, like {_example(unit)}")
    return value


def _split(text: str) -> tuple[str, str]:
    """The longest number at the start of the text, and what follows; ASCII digits only."""
    end = 1 if text[:1] in ("+", "-") else 0
    start = end = _run(text, end)
    if (start == 0 or not text[start - 1].isdigit()) and text[end : end + 1] != ".":
        return "", text
    if text[end : end + 1] == ".":
        end = _run(text, end + 1)
        if not text[end - 1].isdigit():
            return "", text
    if text[end : end + 1] in ("e", "E"):
        signed = end + 2 if text[end + 1 : end + 2] in ("+", "-") else end + 1
        last = _run(text, signed)
        if last > signed:
            end = last
    return text[:end], text[end:].strip(" ")


def _run(text: str, start: int) -> int:
    """Where a run of digits, with single underscores between them, ends."""
    end = start
    while end < len(text) and (
        text[end] in "0123456789"
        or (text[end] == "_" and end > start and text[end - 1] != "_" and text[end + 1 : end + 2].isdecimal())
    ):
        end += 1
    return end


def _digits(number: str, text: str) -> Ratio:
    mantissa, _, exponent = number.replace("_", "").lower().partition("e")
    whole, _, decimals = mantissa.partition(".")
    power = int(exponent or 0) if len(exponent) < 6 else 10 * _MAX_EXPONENT
    if power > _MAX_EXPONENT:
        raise QuantityError(f"{_shown(text)} is too large for any estimate")
    if power < -_MAX_EXPONENT:
        raise QuantityError(f"{_shown(text)} is too small to tell from 0")
    power -= len(decimals)
    digits = int(whole + decimals)
    return (digits * 10**power, 1) if power >= 0 else (digits, 10**-power)


def _factor(rest: str, unit: str, text: str, dollar: bool) -> Ratio:
    """How many `unit` one of the text's own unit is."""
    over, _, under = unit.partition("/")
    if not dollar:
        rest = _spelt_out(rest, over, under, text)
    above, slash, below = (part.strip(" ") for part in rest.partition("/"))
    if bool(slash) != bool(under) and not (under and not below and not above):
        want = f"a rate in {unit}" if under else _wanted(unit)
        if not _plain_count(above, over, slash):
            said = "is a rate, not" if slash else "is not"
            raise QuantityError(f"{_shown(text)} {said} {want}: give one like {_example(unit)}")
    c, d = _numerator(above, over, unit, text, dollar)
    if not below:
        return c, d
    e, f = _word(below, under, unit, text)
    g, h = _own(under)
    return c * f * g, d * e * h


def _plain_count(above: str, over: str, slash: str) -> bool:
    """Whether the text is a number with K, M, B or T only, as in 5K for a rate in token/s."""
    return not slash and above in _COUNTS and _kind(over) == "1"


def _spelt_out(rest: str, over: str, under: str, text: str) -> str:
    """400Gbps and 989TFLOPS as 400Gb/s and 989TFLOP/s, where they cannot mean another thing."""
    if rest.endswith(("bps", "Bps")):
        return rest[:-2] + "/s"
    if rest.endswith(("FLOPS", "flops", "OPS")) and under == "s":
        return rest[:-1] + "/s"
    if rest.endswith(("FLOPS", "FLOPs", "flops", "OPS")) and _kind(over) == "FLOP":
        raise QuantityError(f"{_shown(text)} may be an amount or a rate: write FLOP for work, FLOP/s for speed")
    return rest


def _numerator(above: str, over: str, unit: str, text: str, dollar: bool) -> Ratio:
    kind = _kind(over)
    if dollar or kind == "USD":
        # Money takes the suffixes of counts: $1.2M, 1.2M USD.
        if dollar and kind != "USD":
            raise QuantityError(f"{_shown(text)} is US dollars, not {_wanted(unit)}: give one like {_example(unit)}")
        bare = above
        if not dollar:
            for name in ("USD", "$"):
                if above.endswith(name):
                    bare = above[: -len(name)].strip(" ")
                    break
        if bare == "":
            return 1, 1
        if bare in _COUNTS and (dollar or bare != above):
            return 10 ** _COUNTS[bare], 1
    if kind == "1" and above == "":
        return 1, 1
    if above == "":
        raise QuantityError(f"{_shown(text)} has no unit before '/': give one like {_example(unit)}")
    c, d = _word(above, over, unit, text)
    e, f = _own(over)
    return c * f, d * e


def _own(word: str) -> Ratio:
    """The factor of a word of the unit itself: 3600 for the h of USD/h."""
    kind = _kind(word)
    return (1, 1) if word == kind else _table(kind).get(word, (1, 1))


def _word(word: str, own: str, unit: str, text: str) -> Ratio:
    """The factor of one word of the text, which must be of the kind of `own`."""
    kind = _kind(own)
    if kind == "byte":
        _refuse_ambiguous_bytes(word, unit, text)
        if word in _table("bit"):
            a, b = _table("bit")[word]
            return a, b * 8
    if word in _table(kind):
        return _table(kind)[word]
    if kind == "s" and word in ("m", "M", "mo"):
        raise QuantityError(f"{_shown(text)} may mean minutes, months or milliseconds: write min, d or ms")
    if kind == "1" and word == "G":
        raise QuantityError(f"{_shown(text)}: a count takes K, M, B or T; write B for 10^9")
    other = next((other for other in _KINDS if word not in ("", "B") and word in _table(other)), "")
    if other:
        raise QuantityError(f"{_shown(text)} is {_NAMES[other]}, not {_wanted(unit)}: give one like {_example(unit)}")
    near = _nearest(word, kind)
    if near:
        raise QuantityError(f"{_shown(text)}: unknown unit {word!r}; did you mean {near}?")
    raise QuantityError(f"{_shown(text)} is not {_wanted(unit)}: give one like {_example(unit)}")


def _refuse_ambiguous_bytes(word: str, unit: str, text: str) -> None:
    if word == "B":
        raise QuantityError(f"{_shown(text)} may mean bytes or billions: write byte, GB or GiB")
    if word in _SI or word in _COUNTS:
        raise QuantityError(f"{_shown(text)} may mean {word}B or {word}iB: write one of them")
    if word in _table("byte"):
        return
    if word in _table("bit"):
        # Links are sold in bits, memory is not: 80Gb of memory is more likely a slip.
        if "/" not in unit and not word.endswith(("bit", "bits")):
            raise QuantityError(
                f"{_shown(text)} is in bits: write {word[:-1]}B for bytes, or {word}it if bits are meant"
            )
        return
    near = _nearest(word, "byte")
    if near:
        raise QuantityError(f"{_shown(text)}: case tells bytes from bits; write {near} or {near[0]}bit")


# Made once when first asked for; functools.cache would do, but takes longer to import than to replace.
_tables: dict[str, Factors] = {}
_kinds: dict[str, str] = {kind: kind for kind in _KINDS} | dict.fromkeys(_KINDS["1"][0][0], "1")
_displays: dict[tuple[str, bool], tuple[_Scale, ...]] = {}


def _table(kind: str) -> Factors:
    """Every spelling of a kind, prefixes included, with its factor."""
    if kind not in _tables:
        _tables[kind] = _spelt(kind)
    return _tables[kind]


def _spelt(kind: str) -> Factors:
    table: Factors = {}
    for names, prefixes in _KINDS[kind]:
        for name, (a, b) in names.items():
            table[name] = (a, b)
            for prefix, (c, d) in prefixes.items():
                table[prefix + name] = (a * c, b * d)
    if kind == "1":
        # 15T, 15t, 15T tokens, 15Ttoken.
        nouns = [*table, *(noun + "s" for noun in table)]
        table |= dict.fromkeys(nouns, (1, 1))
        for suffix, power in _COUNTS.items():
            for letter in (suffix, suffix.lower()):
                spelt = (letter, *(f"{letter}{space}{noun}" for noun in nouns for space in ("", " ")))
                table |= dict.fromkeys(spelt, (10**power, 1))
    return table


def _nearest(word: str, kind: str) -> str:
    """The first spelling that differs in upper and lower case only."""
    return next((spelling for spelling in _table(kind) if spelling.lower() == word.lower()), "")


def _kind(word: str) -> str:
    """The kind of one word of a unit: "s" for h, "J" for kWh, "1" for token or mac."""
    if word not in _kinds:
        _kinds[word] = next((kind for kind in _KINDS if kind != "1" and word in _table(kind)), "1")
    return _kinds[word]


def _wanted(unit: str) -> str:
    if "/" in unit:
        return f"a rate in {unit}"
    return _NAMES[_kind(unit)]


def _example(unit: str) -> str:
    over, _, under = unit.partition("/")
    if not under:
        return _EXAMPLES[_kind(unit)]
    rates = {"byte/s": "400Gb/s or 3.35TB/s", "FLOP/s": "989TFLOP/s", "USD/h": "$2.50/h", "g/kWh": "450g/kWh"}
    return rates.get(unit, f"2.5 {over}/{under}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def spellings(unit: str) -> Factors:
    """Every spelling `parse` takes after a number for a unit without '/', with its exact factor."""
    kind = _kind(unit)
    own_a, own_b = _own(unit)
    table = dict(_table(kind))
    if kind == "byte":
        del table["B"]  # bytes or billions
        table |= {word: (a, b * 8) for word, (a, b) in _table("bit").items() if word.endswith(("bit", "bits"))}
    elif kind == "USD":
        table |= {f"{suffix} USD": (10**power, 1) for suffix, power in _COUNTS.items()}
    return {word: (a * own_b, b * own_a) for word, (a, b) in table.items()}


# ---- printing ----------------------------------------------------------------------------------

# A factor, its label, and from how many of it on it is used.
_Scale = tuple[Ratio, str, float]
_BARE = ("1", "USD", "fraction")  # written without a word for the unit
_WHOLE = ("1", "byte", "bit", "FLOP")  # come in whole numbers, so 2 byte is not 2.00 byte


def _scales(letters: str, label: str) -> tuple[_Scale, ...]:
    return tuple(((10 ** _SI[letter], 1), f" {letter}{label}", 1.0) for letter in reversed(letters))


def _below(letters: str, label: str) -> tuple[_Scale, ...]:
    return tuple(((1, 10 ** _SMALL[letter]), f" {letter}{label}", 1.0) for letter in letters)


def _display(kind: str, binary: bool) -> tuple[_Scale, ...]:
    """The scales a kind is printed in, largest first."""
    if (kind, binary) not in _displays:
        _displays[kind, binary] = _scaled(kind, binary)
    return _displays[kind, binary]


def _scaled(kind: str, binary: bool) -> tuple[_Scale, ...]:
    one: Ratio = (1, 1)
    if kind == "byte" and binary:
        powers = (((1024 ** (i + 1), 1), f" {prefix}B", 1.0) for i, prefix in enumerate(_IEC))
        return (*reversed(tuple(powers)), (one, " byte", 1.0))
    if kind == "byte":
        return (*_scales("kMGTPE", "B"), (one, " byte", 1.0))
    if kind == "s":
        return (
            ((1461 * _DAY, 4), " y", 2.0),
            ((_DAY, 1), " d", 2.0),
            ((3600, 1), " h", 2.0),
            ((60, 1), " min", 2.0),
            (one, " s", 1.0),
            *_below("mµnp", "s"),
        )
    if kind == "J":
        watt_hours = (((3600 * 10 ** _SI[letter], 1), f" {letter}Wh", 1.0) for letter in "TGMk")
        return (*watt_hours, ((3600, 1), " Wh", 1.0), (one, " J", 1.0), *_below("mµnp", "J"))
    if kind == "g":
        return (
            *(((10 ** (6 + _SI[p]), 1), f" {p}t", 1.0) for p in "Mk"),
            ((10**6, 1), " t", 1.0),
            ((1000, 1), " kg", 1.0),
            (one, " g", 1.0),
            *_below("mµ", "g"),
        )
    if kind in ("1", "USD"):
        return (*(((10**power, 1), suffix, 1.0) for suffix, power in reversed(_COUNTS.items())), (one, "", 1.0))
    if kind == "fraction":
        return (((1, 100), " %", 1.0),)
    letters = {"bit": "kMGTPE", "FLOP": "kMGTPEZY", "W": "kMGT", "Hz": "kMGT"}[kind]
    return (*_scales(letters, kind), (one, f" {kind}", 1.0), *(_below("mµ", "W") if kind == "W" else ()))


def format(value: float, unit: str, digits: int = 3, *, binary: bool = False) -> str:
    """Print a value compactly, rounded to `digits` significant digits.

    Bytes are printed in GB; `binary` prints them in GiB. What is printed can be read by `parse`.
    """
    value, unit = _displayed(value, unit)
    return _print(value, unit, digits, _chosen(value, unit, digits, binary))


def format_interval(
    low: float, mid: float, high: float, unit: str, digits: int = 2, *, binary: bool = False, dash: str = "–"
) -> str:
    """Print a value with its interval, all in the scale of the middle: "21 d (16 – 28)"."""
    (low, _), (high, _), (mid, unit) = _displayed(low, unit), _displayed(high, unit), _displayed(mid, unit)
    scale = _chosen(mid, unit, digits, binary)
    middle = _print(mid, unit, digits, scale)
    if low == mid == high:
        return middle
    ends = [
        _number(end, unit, digits, scale)
        if scale is not None and _fits(end, scale)
        else _print(end, unit, digits, _chosen(end, unit, digits, binary))
        for end in (low, high)
    ]
    return f"{middle} ({ends[0]} {dash} {ends[1]})"


def _displayed(value: float, unit: str) -> tuple[float, str]:
    """The value in the base of its kind (s for h), and money for a counted thing per million ($0.42/Mtoken)."""
    over, slash, under = unit.partition("/")
    kind = _kind(over)
    if kind not in ("1", over):
        a, b = _own(over)
        return value * a / b, kind + slash + under
    if kind == "USD" and under in _KINDS["1"][0][0]:
        return value * 1e6, f"{over}/M{under}"
    return value, unit


def _fits(value: float, scale: _Scale) -> bool:
    (a, b), _, _ = scale
    return value == 0 or 0.01 <= abs(value) * b / a < 10_000


def _chosen(value: float, unit: str, digits: int, binary: bool) -> _Scale | None:
    """The largest scale of which there is at least one after rounding; None if the value is out of all."""
    kind = _kind(unit.partition("/")[0])
    if not isfinite(value):
        return None
    scales = _display(kind, binary)
    size = abs(value)
    if not value or (kind == "1" and size < 10_000 and value == int(value)):
        return next((scale for scale in scales if scale[0] == (1, 1)), scales[-1])  # 4096 is better than 4.10K
    for scale in scales:
        (a, b), _, least = scale
        scaled = size * b / a
        # Rounding, which is slow, can only lift what is just below.
        if scaled >= least or (scaled >= 0.5 * least and float(_rounded(scaled, digits)) >= least):
            return scale if scale is not scales[0] or scaled < 10_000 else None
    (a, b), _, _ = scales[-1]
    return scales[-1] if size * b / a >= 1e-3 else None


def _print(value: float, unit: str, digits: int, scale: _Scale | None) -> str:
    over, slash, under = unit.partition("/")
    kind = _kind(over)
    rate = slash + under
    if kind == "1" and over != "1":
        rate = f" {over}{rate}"
    if scale is not None:
        return _number(value, unit, digits, scale) + scale[1].removeprefix(_attached(scale)) + rate
    # No scale fits: powers of ten, in the unit itself.
    number = f"{value:.{digits - 1}e}".replace("e+", "e") if isfinite(value) else f"{value}"
    return f"{'$' if kind == 'USD' else ''}{number}{'' if kind in _BARE else f' {over}'}{rate}"


def _attached(scale: _Scale) -> str:
    """What is written to the number without a space: the B of 7.00B."""
    return "" if scale[1].startswith(" ") else scale[1]


def _number(value: float, unit: str, digits: int, scale: _Scale) -> str:
    (a, b), _, _ = scale
    kind = _kind(unit.partition("/")[0])
    scaled = value * b / a
    if kind in _WHOLE and a == b and scaled == int(scaled) and abs(scaled) < 10_000:
        number = str(int(scaled))
    elif kind == "USD" and a == b and 1 <= abs(scaled) < 100:
        number = f"{scaled:.2f}"  # cents
    else:
        number = _rounded(scaled, digits)
    return f"{'$' if kind == 'USD' else ''}{number}{_attached(scale)}"


def _rounded(value: float, digits: int) -> str:
    """Fixed-point text with `digits` significant digits, trailing zeros kept."""
    if not value:
        return "0"
    scientific = f"{value:.{digits - 1}e}"
    power = int(scientific.partition("e")[2])
    return f"{float(scientific):.{max(0, digits - 1 - power)}f}"


def format_exact(value: float, unit: str, *, binary: bool = False) -> str:
    """Print a value so that `parse` gives back the very same float; the shortest scale that does.

    binary: prefer GiB to GB where both are as short.
    """
    over, slash, under = unit.partition("/")
    kind = _kind(over)
    rate = slash + under
    if kind == "1" and over != "1":
        rate = f" {over}{rate}"
    money = "$" if kind == "USD" else ""
    best = f"{money}{_plain(value)}{'' if kind in _BARE else over}{rate}"
    scales = _display(kind, binary) + (_display(kind, not binary) if kind == "byte" else ())
    own, _ = _displayed(value, over)
    for (a, b), label, _ in scales:
        number = _plain(own * b / a)
        text = f"{money}{number}{label.strip()}{rate}"
        if value and "e" not in number and len(text) < len(best) and _same(text, unit, value):
            best = text
    return best


def _plain(value: float) -> str:
    """The shortest text of a float: 7, 0.25, 1e21."""
    text = repr(float(value)).replace("e+", "e")
    return text.removesuffix(".0")


def _same(text: str, unit: str, value: float) -> bool:
    try:
        return parse(text, unit) == value
    except QuantityError:
        return False


# ---- units in names ----------------------------------------------------------------------------

_NAMED = {
    "byte": "byte",
    "bytes": "byte",
    "bit": "bit",
    "bits": "bit",
    "flop": "FLOP",
    "s": "s",
    "second": "s",
    "seconds": "s",
    "h": "h",
    "hour": "h",
    "hours": "h",
    "w": "W",
    "j": "J",
    "wh": "Wh",
    "kwh": "kWh",
    "usd": "USD",
    "g": "g",
    "hz": "Hz",
    "fraction": "fraction",
}


def unit_in_name(name: str) -> str:
    """The unit a name carries: "byte" for weight_bytes, "FLOP/s" for peak_flop_per_s, "1" for layers.

    A word that is one letter long is a unit only behind another (latency_s, not s); a time per
    thing carries its unit at the end (time_per_token_s).
    """
    over, *under = name.split("_per_")
    if over.endswith("time"):
        return _named(name)
    units = [_named(f"x_{over}" if under else over), *(_named(f"x_{part}") for part in under)]
    below = [unit for unit in units[1:] if unit not in ("1", "fraction")]
    return "/".join([units[0], *below])


def _named(words: str) -> str:
    first, *others = words.split("_")
    last = others[-1] if others else first
    return _NAMED.get(last, "1") if others or len(first) > 1 else "1"


def known_units() -> Sequence[str]:
    """The units `parse` and `format` know by themselves."""
    return tuple(_KINDS)
