"""How many bits a quantised checkpoint stores per weight, scales included, by precision group.

A format stores a few bits a weight and a scale (and perhaps a zero point) for each group of them: bits + (scale +
zero) / group. Configs name the modules a format covers, or the ones it leaves alone, in many spellings; the names are
sorted by the words in them and never run as regular expressions.
"""

from __future__ import annotations

from capacity.spec.model import Attention, Experts, FeedForward, Recurrent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from capacity.importers.huggingface.config import Config
    from capacity.spec.model import Linear, ModelSpec

FLOAT_SCALE, HALF_SCALE, BYTE_SCALE = 32.0, 16.0, 8.0

# Named formats: element bits plus one scale of 8 bits for each 16 (NVFP4) or 32 (MX) elements; per-tensor scales vanish.
# NVIDIA, "Introducing NVFP4" (2025); OCP Microscaling Formats specification v1.0 (2023).
FORMATS = {
    "NVFP4": 4.0 + BYTE_SCALE / 16.0,
    "MXFP4": 4.0 + BYTE_SCALE / 32.0,
    "MXFP8": 8.0 + BYTE_SCALE / 32.0,
    "INT4_AWQ": 4.0 + HALF_SCALE / 128.0,
    "INT8": 8.0,
    "FP8": 8.0,
}
# Linear maps that no method quantises unless it names them.
SPARED = ("router", "head")
LAYERS = "layers."

# A mark says how many bits a part of a group has: (layer, projection), None for all of them.
Marks = dict[str, dict[tuple[int | None, str | None], float]]


def weight_bits(config: Config, model: ModelSpec) -> tuple[dict[str, float] | None, tuple[str, ...]]:
    """Effective bits by precision group ("" is the default: norms, embeddings, what was left alone), and notes.

    None where the config names no quantisation, or one that is not understood (then a note says so).
    """
    data = _quantisation(config)
    if data is None:
        return None, ()
    full = 32.0 if _text(config.data, "torch_dtype", "dtype") == "float32" else 16.0
    found = _base(data)
    if found is None:
        method = _text(data, "quant_method", "quant_algo") or "without a name"
        return None, (
            f"quantisation method {method[:40]!r} is not understood: weights are counted at the workload's precision",
        )
    base, targets_all, head_too = found
    groups = _Groups(model)
    marks: Marks = {}
    for name in _ignored(data):
        groups.mark(marks, name, full)
    for name, bits in _targeted(data):
        groups.mark(marks, name, bits)
    expert = _algorithm(_text(data, "moe_quant_algo") or {"fp4": "MXFP4"}.get(_text(config.data, "expert_dtype"), ""))
    if expert is not None:  # one format for experts, the method's own for the rest; its ignore list is about the former
        marks = {"expert": {(None, None): expert}}
    bits_of = {"": full}
    for group in groups.linears:
        spared = group == "router" or (group == "head" and not head_too)
        bits_of[group] = groups.average(group, full if spared or not targets_all else base, marks.get(group, {}))
    return bits_of, ()


def weight_format(config: Config) -> str:
    """The number format of a quantised checkpoint's narrowest weights: nvfp4, mxfp4, fp8, int8 or int4; "" for none known."""
    data = _quantisation(config)
    if data is None:
        return ""
    method = _text(data, "quant_method").lower()
    named = f"{method} {_text(data, 'quant_algo')} {_text(data, 'moe_quant_algo')} {_text(data, 'format')}".lower()
    for name in ("nvfp4", "mxfp4", "fp8"):
        if name in named:
            return name
    found = _base(data)
    if found is None or found[0] >= 16.0:
        return ""
    floats = any(
        isinstance(one.get("weights"), dict) and one["weights"].get("type") == "float" for one in _groups(data)
    )
    return ("nvfp4" if found[0] < 6.0 else "fp8") if floats else ("int4" if found[0] < 6.0 else "int8")


def _quantisation(config: Config) -> dict[str, Any] | None:
    text = config.data.get("text_config")
    for holder in (config.data, text if isinstance(text, dict) else {}):
        for name in ("quantization_config", "compression_config"):
            found = holder.get(name)
            if isinstance(found, dict):
                return found
    return None


def _text(data: dict[str, Any], *names: str) -> str:
    for name in names:
        value = data.get(name)
        if isinstance(value, str):
            return value
    return ""


def _number(data: dict[str, Any], name: str, default: float) -> float:
    value = data.get(name)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 < value < 1e9
    return float(value) if usable and value is not None else default


def _base(data: dict[str, Any]) -> tuple[float, bool, bool] | None:
    """Bits of a quantised linear map, whether every one is unless named, and whether the head is one of them."""
    method = _text(data, "quant_method").lower()
    if method == "fp8":
        return 8.0 + FLOAT_SCALE / _block(data.get("weight_block_size")), True, False
    if method == "mxfp4":
        return FORMATS["MXFP4"], True, False
    if method in ("awq", "gptq"):
        bits = _number(data, "bits", 4.0 if method == "awq" else _number(data, "w_bit", 4.0))
        group = _number(data, "group_size", 1e9)  # -1: one group a channel, whose scale vanishes
        zero = bits if method == "gptq" or data.get("zero_point", True) else 0.0
        return bits + (HALF_SCALE + zero) / group, True, bool(data.get("lm_head", False))
    if method == "bitsandbytes":
        if data.get("load_in_4bit"):
            double = data.get("bnb_4bit_use_double_quant")
            return (
                4.0 + (BYTE_SCALE / 64.0 + FLOAT_SCALE / (64.0 * 256.0) if double else FLOAT_SCALE / 64.0),
                True,
                False,
            )
        return (8.0, True, False) if data.get("load_in_8bit") else None
    if isinstance(data.get("quantized_layers"), dict):
        return 16.0, False, True
    algorithm = _algorithm(_text(data, "quant_algo"))
    if algorithm is not None:
        return algorithm, True, True
    return _first_group(data)


def _first_group(data: dict[str, Any]) -> tuple[float, bool, bool] | None:
    """The scheme of a config whose groups say number of bits, type and group size."""
    schemes = [(_scheme(group), _targets(group)) for group in _groups(data)]
    known = [(bits, targets) for bits, targets in schemes if bits is not None]
    if not known:
        return None
    for bits, targets in known:
        if not targets or "Linear" in targets:
            return bits, True, True
    return known[0][0], False, True


def _groups(data: dict[str, Any]) -> list[dict[str, Any]]:
    groups = data.get("config_groups")
    return [group for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []


def _targets(group: dict[str, Any]) -> list[str]:
    targets = group.get("targets")
    return [name for name in targets if isinstance(name, str)] if isinstance(targets, list) else []


def _scheme(group: dict[str, Any]) -> float | None:
    """Bits of one group of a compressed-tensors or modelopt config: elements, scale and zero point."""
    weights = group.get("weights")
    if not isinstance(weights, dict):
        return None
    bits = _number(weights, "num_bits", 0.0)
    if not 1.0 <= bits <= 32.0:
        return None
    size = _number(weights, "group_size", 1e9)
    if weights.get("strategy") == "block":
        size = _block(weights.get("block_structure"))
    micro = weights.get("type") == "float" and bits <= 8.0 and size <= 32.0
    scale = BYTE_SCALE if micro else HALF_SCALE
    zero = bits if weights.get("symmetric") is False else 0.0
    return bits + (scale + zero) / size


def _block(shape: Any) -> float:
    """Weights that share a scale; no block: a whole tensor does."""
    if not isinstance(shape, (list, tuple)) or not shape:
        return 1e9
    size = 1.0
    for side in shape:
        if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= 1e6:
            return 1e9
        size *= side
    return size


def _algorithm(name: str) -> float | None:
    """Bits of a format named as NVFP4, W4A16_NVFP4, FP8_PB_WO and the like."""
    upper = name.upper()
    return next((bits for known, bits in FORMATS.items() if known in upper), None)


def _ignored(data: dict[str, Any]) -> Iterator[str]:
    for field in ("ignore", "modules_to_not_convert", "exclude_modules", "ignored_layers", "llm_int8_skip_modules"):
        names = data.get(field)
        if isinstance(names, list):
            yield from (name for name in names if isinstance(name, str))


def _targeted(data: dict[str, Any]) -> Iterator[tuple[str, float]]:
    layers = data.get("quantized_layers")
    if isinstance(layers, dict):
        for name, how in layers.items():
            bits = _algorithm(_text(how, "quant_algo")) if isinstance(how, dict) else None
            if bits is not None:
                yield name, bits
        return
    for group in _groups(data):
        bits = _scheme(group)
        if bits is not None:
            yield from ((name, bits) for name in _targets(group) if name != "Linear")


class _Groups:
    """The linear maps of a model by precision group, and how many layers hold each."""

    def __init__(self, model: ModelSpec) -> None:
        self.linears: dict[str, dict[str, float]] = {}  # weights by group and name, all layers together
        self.holders: dict[tuple[str, str], float] = {}  # layers that hold a linear map
        self.layers: dict[str, float] = {}  # layers that hold a group
        self.depth = sum(block.count for block in model.blocks if block.stack != "mtp")
        self._add(model.head, 1.0)
        for block in model.blocks:
            if block.stack == "mtp":
                continue
            groups = self._add(block.extra, block.count)
            for sublayer in block.sublayers:
                if isinstance(sublayer, (Attention, Recurrent, FeedForward)):
                    groups |= self._add(sublayer.projections, block.count)
                elif isinstance(sublayer, Experts):
                    groups |= self._add(sublayer.router, block.count)
                    groups |= self._add(sublayer.projections, block.count)
                    groups |= self._add(sublayer.shared, block.count)
            for group in groups:
                self.layers[group] = self.layers.get(group, 0.0) + block.count

    def _add(self, linears: Iterable[Linear], count: float) -> set[str]:
        groups = set()
        for linear in linears:
            sizes = self.linears.setdefault(linear.group, {})
            weights = linear.in_features * linear.out_features * count
            sizes[linear.name] = sizes.get(linear.name, 0.0) + weights
            holder = linear.group, linear.name
            self.holders[holder] = self.holders.get(holder, 0.0) + count
            groups.add(linear.group)
        return groups

    def mark(self, marks: Marks, name: str, bits: float) -> None:
        """Note that the modules a name or pattern covers have these bits."""
        plain = name.removeprefix("re:").replace("\\", "").replace(".*", ".").strip("*.^$")
        layer = _layer_index(plain)
        if layer is not None and layer >= self.depth:
            return  # a layer for multi-token prediction
        for group, projection in self._parts(plain.lower(), layer):
            marks.setdefault(group, {})[(layer, projection)] = bits

    def _parts(self, name: str, layer: int | None) -> Iterator[tuple[str, str | None]]:
        last = name.rsplit(".", 1)[-1].strip("*")
        if "mtp" in name or "norm" in name or "embed_tokens" in name or "bias" in name:
            return
        if any(word in name for word in ("vision", "visual", "mm_projector", "multi_modal", "merge")):
            yield "vision", None
        elif "lm_head" in name or name == "head":
            yield "head", None
        elif last in ("gate", "router") or "expert_gate" in name or ".router" in name:
            yield "router", None
        elif "shared_expert" in name:
            yield "shared_expert", self._projection("shared_expert", last)
        elif "experts" in name:
            yield "expert", self._projection("expert", last)
        elif any(word in name for word in ("attn", "attention", "mamba", "mixer", "conv1d")):
            yield from self._mixer(name, last)
        elif "mlp" in name or "ffn" in name or "feed_forward" in name or "moe" in name:
            groups = ("ffn",) if "ffn" in self.linears else ("expert", "shared_expert")
            yield from ((group, self._projection(group, last)) for group in groups)
        elif layer is not None and last == str(layer):
            yield from ((group, None) for group in self._whole(layer))

    def _mixer(self, name: str, last: str) -> Iterator[tuple[str, str | None]]:
        own = "recurrent" in self.linears and any(word in name for word in ("linear", "mamba", "mixer", "conv1d"))
        group = "recurrent" if own else "attention"
        projection = self._projection(group, last)
        # A part that is not a linear map of its own (an indexer's weights) leaves the rest as it is.
        if projection is not None or last.endswith(("attn", "attention", "mamba", "mixer")):
            yield group, projection

    def _projection(self, group: str, last: str) -> str | None:
        return last if last in self.linears.get(group, {}) else None

    def _whole(self, layer: int) -> list[str]:
        """Groups of one whole layer; where some layers are dense, those come first."""
        dense = layer < self.layers.get("ffn", 0.0)
        absent = {"expert", "shared_expert"} if dense else {"ffn"}
        return [group for group in self.linears if group not in absent and group not in ("head", "vision")]

    def average(self, group: str, base: float, marks: dict[tuple[int | None, str | None], float]) -> float:
        """Bits of a group: its base, but for the parts that are marked, by their share of its weights."""
        if (None, None) in marks:
            return marks[None, None]
        bits, covered = 0.0, 0.0
        for (layer, projection), value in marks.items():
            part_of_more = layer is not None and projection is not None
            if part_of_more and ((layer, None) in marks or (None, projection) in marks):
                continue
            share = min(self._share(group, layer, projection), 1.0 - covered)
            bits += share * value
            covered += share
        return bits + (1.0 - covered) * base

    def _share(self, group: str, layer: int | None, projection: str | None) -> float:
        """How much of a group's weights a mark covers."""
        share, holders = 1.0, self.layers.get(group, 1.0)
        if projection is not None:
            sizes = self.linears[group]
            share = sizes[projection] / (sum(sizes.values()) or 1.0)
            holders = self.holders[group, projection]
        return share if layer is None else share / (holders or 1.0)


def _layer_index(name: str) -> int | None:
    """The layer a module name is in; None where it names none."""
    at = name.find(LAYERS)
    if at < 0:
        return None
    digits = name[at + len(LAYERS) :].split(".", 1)[0].strip("*")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else None
