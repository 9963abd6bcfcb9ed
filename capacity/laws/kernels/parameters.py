"""What each parameter of a kernel law means, where its fit starts and may go, and how far a device may sit from its kin."""

from __future__ import annotations

from capacity.laws.kernels.gemm import GEMM_DTYPES
from capacity.record import Record

TYPE_CHECKING = False


class Parameter(Record):
    """A fitted parameter: first guess and bounds, `spread` (in logarithms) round the prior of its op and dtype."""

    start: float
    low: float
    high: float
    spread: float
    meaning: str


_ROWS: dict[str, dict[str, tuple[float, float, float, float, str]]] = {
    "gemm": {
        "t0": (5, 1, 700, 0.5, "launch, kiloclocks"),
        "tq2": (4.5, 0.2, 20, 0.5, "latency of the quantising kernel at large m, kiloclocks"),
        "mq": (300, 20, 3000, 0.5, "m where it is reached, half"),
        "eq": (0.5, 0.1, 4, 0.5, "its share of DRAM bandwidth"),
        "ec": (0.8, 0.02, 1.1, 0.3, "share of peak of a full tile"),
        "lam": (0.015, 0.001, 0.2, 0.4, "operand bytes a FLOP of peak"),
        "kc": (150, 2, 20000, 1.0, "clocks of pipeline latency per 64 of k"),
        "kcp": (3, 0.5, 30, 0.5, "times as many without bulk copies"),
        "eo": (1.2, 0.02, 20, 0.6, "epilogue, in output bytes at one SM's share of DRAM"),
        "ov": (0.5, 0.02, 1, 0.6, "share of the epilogue not hidden after the first wave"),
        "wq": (0.3, 0.01, 1, 0.6, "share of wave quantisation"),
        "eb": (0.8, 0.02, 1, 0.2, "share of DRAM bandwidth"),
        "p": (2.4, 1.3, 8, 0.4, "sharpness of compute/memory overlap"),
        "tr": (5, 0.5, 36, 0.4, "reduction after split-k, kiloclocks"),
        "smax": (24, 2, 100, 0.5, "largest split"),
        "rb": (3, 0.1, 20, 1.0, "share of DRAM for partial sums"),
        "l2c": (10, 2, 60, 0.4, "L2 bytes/clock/SM when hot"),
        "fl2": (0.25, 0.05, 1.5, 0.4, "share of L2 that stays hot for a GEMM"),
        "fo": (0.9, 0.05, 2, 0.4, "the same for activations and output"),
    },
    "prefill": {
        "t0": (15, 2, 70, 0.5, "launch, kiloclocks"),
        "c0": (3500, 50, 30000, 0.7, "clocks per work item"),
        "ec": (0.6, 0.1, 1.2, 0.4, "share of peak"),
        "cs": (1.2, 0.1, 8, 0.5, "exponentials per score"),
        "eb": (0.6, 0.1, 1, 0.4, "share of DRAM"),
        "Tq": (128, 32, 300, 0.4, "query rows of an item at head size 128"),
        "th": (0.25, 0.01, 1.5, 0.6, "item rows shrink as (128/head size)^th"),
        "r": (1.4, 1, 5, 0.4, "sharpness of overlap"),
        "pk": (0.9, 0.02, 1, 1.5, "GQA heads packed in an item: g^pk"),
        "kx": (20, 2, 300, 0.7, "keys of masked padding per item"),
        "lg": (0.5, 0.05, 2, 0.6, "longest items exposed at ramp and tail"),
        "wa": (0.2, 0.01, 1, 0.6, "share of wave quantisation"),
        "kvx": (3, 0.3, 8, 0.5, "passes over k and v"),
        "t1": (0.95, 0.4, 2, 0.4, "launch factor at one token"),
        "f64": (1.2, 0.2, 4, 0.7, "key time, head size 64"),
        "f192": (1.2, 0.2, 8, 0.7, "192"),
        "f256": (1, 0.2, 4, 0.7, "256"),
        "f512": (1.3, 0.2, 14, 0.9, "512"),
        "u64": (1, 0.4, 2.5, 0.4, "launch, head size 64"),
        "u192": (1, 0.4, 2.5, 0.4, "192"),
        "u256": (1, 0.4, 2.5, 0.4, "256"),
        "u512": (1, 0.4, 2.5, 0.4, "512"),
        "g64": (1, 0.2, 4, 0.6, "key time, small window, 64"),
        "g128": (1, 0.2, 4, 0.6, "128"),
        "g192": (1, 0.2, 4, 0.6, "192"),
        "c0w": (1, 0.1, 5, 0.6, "item time, windowed"),
        "wx": (64, 1, 1000, 1.0, "keys overshot, small window"),
        "wxk": (64, 1, 1e5, 2.0, "keys overshot, window > 512"),
        "tw": (1.05, 0.5, 2, 0.4, "launch, windowed"),
        "l2c": (10, 2, 60, 0.5, "L2 bytes/clock/SM when hot"),
        "fo": (0.8, 0.05, 2, 0.5, "share of L2 that stays hot"),
    },
    "decode": {
        "t0": (12, 2, 70, 0.5, "launch, kiloclocks"),
        "c0": (2500, 50, 30000, 0.8, "clocks per work item"),
        "cq": (60, 0.5, 2000, 1.0, "clocks per query head of an item"),
        "r": (50, 3, 500, 0.7, "bytes/clock one SM can stream"),
        "eb": (0.85, 0.2, 1.1, 0.2, "share of DRAM"),
        "p": (2.5, 1, 8, 0.5, "sharpness of overlap"),
        "nsp": (3, 0.5, 16, 0.7, "splits aim at nsp items per SM"),
        "smin": (160, 16, 2000, 0.6, "fewest keys of a split"),
        "tk0": (32, 1, 300, 0.7, "padding keys per item"),
        "tc": (3.6, 0.2, 27, 0.6, "merge of splits, kiloclocks"),
        "ce": (0.5, 0.001, 5, 0.7, "exponentials per score"),
        "q": (1.5, 1, 8, 0.5, "how one wave joins many"),
        "l2c": (10, 2, 60, 0.5, "L2 bytes/clock/SM when hot"),
        "fl2": (0.5, 0.05, 2, 0.5, "share of L2 that stays hot"),
        "wx": (64, 1, 2000, 1.0, "keys overshot, small window"),
        "wxk": (64, 1, 1e5, 2.0, "keys overshot, window > 512"),
        "ev": (1, 0.3, 2, 0.4, "share of DRAM, lone"),
        **{
            x + s: (1, lo, hi, sd, f"{nm}, {fam}")
            for x, nm, lo, hi, sd in (
                ("c", "item time", 0.1, 6, 0.6),
                ("t", "launch", 0.4, 2.5, 0.3),
                ("r", "key time", 0.1, 6, 0.6),
            )
            for s, fam in (
                ("64", "head size 64"),
                ("192", "192"),
                ("256", "256"),
                ("512", "512"),
                ("m", "MHA"),
                ("v", "lone"),
                ("w", "small window"),
            )
        },
        "cx": (0.5, 0.02, 5, 0.8, "item time, unpacked"),
        "rx": (0.5, 0.05, 5, 0.8, "key time, unpacked"),
    },
    "expert": {
        "t0": (27, 2, 180, 0.6, "launches, kiloclocks"),
        "te": (0.02, 0.001, 1, 0.8, "kiloclocks per local expert"),
        "tt": (3.6, 0.02, 70, 1.0, "kiloclocks per 1000 tokens"),
        "t1": (16, 0.4, 100, 0.6, "kiloclocks of routing once pairs >> ph"),
        "ph": (20, 1, 300, 0.6, "pairs where it is half"),
        "ec": (0.6, 0.05, 1.1, 0.4, "share of peak"),
        "lam": (0.015, 0.001, 0.3, 0.4, "operand bytes a FLOP of peak"),
        "kc": (150, 2, 3000, 0.8, "clocks per 64 of k"),
        "eo": (1.5, 0.02, 20, 0.7, "epilogue, in output bytes at one SM's share"),
        "eb": (0.9, 0.2, 1.1, 0.2, "share of DRAM, weights"),
        "ea": (0.8, 0.1, 5, 0.6, "share of DRAM, activations"),
        "an": (0.3, 0.001, 20, 1.2, "passes over the hidden states of all routed pairs"),
        "p": (1.7, 1, 6, 0.4, "sharpness of overlap"),
        "l2c": (10, 2, 60, 0.5, "L2 bytes/clock/SM when hot"),
        "fl2": (0.5, 0.05, 2, 0.5, "share of L2 that stays hot"),
        "mt": (1, 0.4, 2.5, 0.4, "launch, tp and ep"),
        "mb": (1, 0.4, 2.5, 0.3, "body, tp and ep"),
        "tb": (1, 0.4, 2.5, 0.3, "body, ungated"),
        "t2": (1.5, 0.4, 2.5, 0.4, "launch, ungated"),
        "gb": (1.8, 0.8, 4, 0.5, "body, generic kernel"),
    },
    "collective": {
        "a": (7, 1, 40, 0.5, "latency, us"),
        "b": (1, 0.1, 6, 0.5, "us per step"),
        "ar": (1, 0.5, 2, 0.2, "all-reduce latency factor"),
        "eL": (0.02, 0.003, 2, 0.7, "LL slope, share of link"),
        "eM": (0.4, 0.05, 2, 0.5, "LL128 slope"),
        "aM": (1.3, 0.05, 20, 0.7, "LL128 us"),
        "eW": (1.4, 0.2, 4, 0.5, "Simple: share of link on the wire"),
        "gam": (0.55, 0.005, 3, 0.5, "buffer copies"),
        "gr": (1.5, 0.3, 3, 0.3, "more for all-reduce"),
        "aS": (8, 0.3, 60, 0.8, "Simple us"),
        "bS": (2, 0.02, 20, 1.0, "Simple us per step"),
        "th": (0.8, 0.05, 20, 0.6, "MB a device where Simple starts"),
        "ax": (1.3, 0.4, 3, 0.3, "all-to-all latency factor"),
        "ba": (0.25, 0.01, 3, 0.8, "all-to-all us per peer"),
        "eP": (0.03, 0.002, 2, 1.0, "all-to-all plateau slope"),
        "aP": (7, 0.1, 40, 0.6, "plateau us"),
        "eA": (1.5, 0.2, 8, 0.7, "all-to-all share of link"),
        "ga": (0.5, 0.005, 3, 1.0, "all-to-all copies"),
        "pc4": (4, 1, 20, 0.7, "PCIe sharing at 4"),
        "pc8": (15, 1, 40, 0.7, "PCIe sharing at 8"),
    },
}

SPECS = {op: {name: Parameter(*row) for name, row in rows.items()} for op, rows in _ROWS.items()}
# GEMM parameters without meaning for a dtype, by whether its activations are quantised by a kernel of their own.
_GEMM_WITHOUT = {True: ("tr", "smax", "rb"), False: ("tq2", "mq", "eq")}


def names_of(op: str, sub: str) -> list[str]:
    """The parameters that have a meaning for an op and dtype (or family of one: "fp8_block|fallback")."""
    without = _GEMM_WITHOUT[GEMM_DTYPES[sub.partition("|")[0]][3]] if op == "gemm" else ()
    return [name for name in SPECS[op] if name not in without]


def starts(op: str, sub: str) -> dict[str, float]:
    """First guesses of the parameters of an op and dtype."""
    return {name: SPECS[op][name].start for name in names_of(op, sub)}
