"""Vision models that stand alone: a tower, and a classifier on one position of each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.errors import InputError, UnsupportedArchitectureError
from capacity.importers import parts
from capacity.importers.huggingface import towers
from capacity.importers.huggingface.common import divide, labels, layers_apart, norm, pooled, side, task
from capacity.importers.huggingface.layers import architecture
from capacity.importers.huggingface.towers import VISION, Tower
from capacity.record import replace
from capacity.spec.model import REPLICATED, Block, Convolution, Linear, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.importers.huggingface.config import Config


def _model(config: Config, name: str, tower: Tower, *head: Block) -> ModelSpec:
    """A tower under its head; it has no vocabulary."""
    model = ModelSpec(
        name=name,
        architecture=architecture(config),
        hidden=tower.width,
        vocab_size=0,
        blocks=(*tower.blocks, *head),
        embeddings=tower.embeddings,
        head=(),
        source=config.where,
        convs=tower.convs,
    )
    return layers_apart(model)


def _classifiers(config: Config, width: int, count: int = 1) -> Block:
    number = labels(config)
    return pooled(width, VISION, *((f"classifier_{index}", width, number) for index in range(count)))


def _vit(config: Config, name: str) -> ModelSpec:
    return _vit_like(config, name, prefix=1)


def _deit(config: Config, name: str) -> ModelSpec:
    return _vit_like(config, name, prefix=2)


def _vit_like(config: Config, name: str, *, prefix: int) -> ModelSpec:
    """ViT has a class token, DeiT a distillation token besides and, with a teacher, a classifier on each."""
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    bias = config.flag("qkv_bias", True)
    size = divide(config, hidden, heads)
    block = towers.layer(hidden, heads, size, config.count("intermediate_size"), bias=bias, out_bias=True)
    outer = (prefix + 2) * hidden
    tower = towers.plain(config, block=block, patch=16, image=224, outer=outer, prefix=prefix)
    endings = ("ForImageClassification", "Model") + (("ForImageClassificationWithTeacher",) if prefix > 1 else ())
    kind = task(config, endings, endings[0])
    if kind == "Model":
        pooler = pooled(hidden, VISION, ("pooler", hidden, config.count("pooler_output_size", hidden)))
        return _model(config, name, tower, pooler)
    return _model(config, name, tower, _classifiers(config, hidden, 2 if kind.endswith("Teacher") else 1))


def _dinov2(config: Config, name: str) -> ModelSpec:
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    bias = config.flag("qkv_bias", True)
    width, gated = int(hidden * config.number("mlp_ratio", 4)), config.flag("use_swiglu_ffn", False)
    if gated:
        width = (int(width * 2 / 3) + 7) // 8 * 8
    size = divide(config, hidden, heads)
    block = towers.layer(hidden, heads, size, width, bias=bias, out_bias=True, gated=gated, norms=6)
    registers = 0
    if config.text("model_type") == "dinov2_with_registers":
        registers = config.count("num_register_tokens", 4, least=0)
    # A class token, a mask token that only training reads, registers and the last norm.
    outer = (3 + config.flag("use_mask_token", True) + registers) * hidden
    tower = towers.plain(config, block=block, patch=14, image=224, outer=outer, prefix=1 + registers, read_positions=1)
    if task(config, ("ForImageClassification", "Model"), "Model") == "Model":
        return _model(config, name, tower)
    # The class token beside the mean of the patches.
    return _model(config, name, tower, pooled(hidden, VISION, ("classifier", 2 * hidden, labels(config))))


def _alone(config: Config, name: str) -> ModelSpec:
    task(config, ("VisionModel",), "VisionModel")
    return _model(config, name, towers.tower_of(config, "clip_vision_model"))


def _swin(config: Config, name: str) -> ModelSpec:
    """Swin: windows of patches that do not see each other; each stage merges four patches into one twice as wide."""
    kind = task(config, ("ForImageClassification", "Model"), "ForImageClassification")
    width = config.count("embed_dim", 96)
    patches = towers.grid(config, 224, 4)
    (height, across), (patch, patch_across) = side(config, "image_size", 224), side(config, "patch_size", 4)
    if (height, patch) != (across, patch_across):
        raise UnsupportedArchitectureError(f"{config.where}: images or patches that are not square are not known")
    rows, window = height // patch, config.count("window_size", 7)
    depths, heads = _numbers(config, "depths", [2, 2, 6, 2]), _numbers(config, "num_heads", [3, 6, 12, 24])
    if len(depths) != len(heads):
        raise InputError(f"{config.where}: depths has {len(depths)} stages and num_heads {len(heads)}")
    absolute = patches * width if config.flag("use_absolute_embeddings", False) else 0
    blocks = [norm(width, 2 * width + absolute, VISION)]
    hidden = width
    for stage, (depth, number) in enumerate(zip(depths, heads, strict=True)):
        rate = 0.25**stage
        blocks.append(replace(_swin_layer(config, hidden, number, rows, window), count=depth, rate=rate))
        if stage + 1 < len(depths):
            if rows % 2:
                raise UnsupportedArchitectureError(f"{config.where}: {rows} rows of patches cannot be halved")
            merge = Linear("reduction", 4 * hidden, 2 * hidden, False, REPLICATED, VISION)
            blocks.append(Block(1, hidden, (), VISION, vector_params=8 * hidden, extra=(merge,), rate=rate / 4))
            rows, hidden = rows // 2, 2 * hidden
    blocks.append(norm(hidden, 2 * hidden, VISION))
    conv = Convolution("patches", config.count("num_channels", 3), width, patch * patch, patches)
    tower = Tower(hidden, tuple(blocks), (conv,))
    return _model(config, name, tower) if kind == "Model" else _model(config, name, tower, _classifiers(config, hidden))


def _swin_layer(config: Config, hidden: int, heads: int, rows: int, window: int) -> Block:
    if rows % window:
        raise UnsupportedArchitectureError(
            f"{config.where}: {rows} rows of patches are not a multiple of window_size {window}; padding is not known"
        )
    return towers.layer(
        hidden,
        heads,
        divide(config, hidden, heads),
        int(hidden * config.number("mlp_ratio", 4.0)),
        bias=config.flag("qkv_bias", True),
        out_bias=True,
        biases=(2 * window - 1) ** 2 * heads,
        split=window * window,
    )


def _numbers(config: Config, name: str, default: list[int]) -> list[int]:
    values = config.items(name, default)
    if not values or not all(
        isinstance(v, int) and not isinstance(v, bool) and 0 < v <= parts.MOST_LAYERS for v in values
    ):
        raise InputError(f"{config.where}: {name} is {str(values)[:60]}; it must be a list of whole numbers")
    return values


ADAPTERS: dict[str, Callable[[Config, str], ModelSpec]] = {
    "clip_vision_model": _alone,
    "deit": _deit,
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2,
    "siglip_vision_model": _alone,
    "swin": _swin,
    "vit": _vit,
}
