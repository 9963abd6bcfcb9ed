"""Vision towers: patches of an image, a stack of layers that see them all, and what hands them on.

A tower is the same whether it stands alone under a classifier or in front of a language model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.errors import InputError, UnsupportedArchitectureError
from capacity.importers import parts
from capacity.importers.huggingface.common import divide, layers_apart, norm, seeing_all, side
from capacity.importers.huggingface.layers import NO_VISION
from capacity.record import Record, replace
from capacity.spec.model import REPLICATED, Block, Convolution, Embedding, FeedForward, Linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.importers.huggingface.config import Config
    from capacity.spec.model import ModelSpec

VISION = "vision"
# Where the config does not say how large images are: 32 x 32 patches.
USUAL_PATCHES = 1024


class Tower(Record):
    """Blocks, tables and front end of a vision tower; width: of what it hands on; guessed: why its patches are."""

    width: int
    blocks: tuple[Block, ...]
    convs: tuple[Convolution, ...]
    embeddings: tuple[Embedding, ...] = ()
    guessed: str = ""


def grid(config: Config, image: int, patch: int) -> int:
    """Patches of an image whose sides the config gives; a remainder is cut off, as a convolution does."""
    height, width = side(config, "image_size", image)
    patch_height, patch_width = side(config, "patch_size", patch)
    if patch_height > height or patch_width > width:
        raise InputError(f"{config.where}: patch_size {patch_height} is larger than image_size {height}")
    return (height // patch_height) * (width // patch_width)


def area(config: Config, patch: int) -> int:
    """Pixels of one patch."""
    height, width = side(config, "patch_size", patch)
    return height * width


def layer(
    hidden: int,
    heads: int,
    size: int,
    width: int,
    *,
    bias: bool = True,
    out_bias: bool | None = None,
    mlp_bias: bool = True,
    gated: bool = False,
    norms: float = 4.0,
    head_norm: float = 0.0,
    biases: float = 0.0,
    rotary: bool = False,
    split: float = 0.0,
) -> Block:
    """One layer.

    norms: norm and scale weights in multiples of the hidden size; head_norm: those of queries and keys; biases:
    entries of a table of relative-position biases; split: patches of a window where windows do not see each other.
    """
    mixer = parts.attention(
        hidden,
        heads,
        heads,
        size,
        bias=bias,
        out_bias=out_bias,
        rotary_size=size if rotary else 0,
        group=VISION,
        vector_params=head_norm + biases,
        qk_norm=head_norm > 0,
    )
    network = FeedForward(
        parts.ffn_projections(hidden, width, gated=gated, bias=mlp_bias, group=VISION), width, gated=gated
    )
    mixer = replace(seeing_all(mixer), split=split)
    return Block(1, hidden, (mixer, network), VISION, vector_params=norms * hidden)


def repeated(config: Config, block: Block, field: str = "num_hidden_layers", default: int | None = None) -> Block:
    """As many of a layer as the config says."""
    count = config.count(field) if default is None else config.count(field, default)
    return replace(block, count=parts.layer_count(count, config.where))


def plain(
    config: Config,
    *,
    block: Block,
    patch: int,
    image: int,
    outer: float,
    prefix: int = 0,
    read_positions: int | None = None,
    conv_bias: bool = True,
    layers: int | None = None,
) -> Tower:
    """A tower with a learnt position of each patch.

    outer: parameters outside the layers (norms; class, mask and register tokens); prefix: learnt tokens before the
    patches; read_positions: how many of those have a row in the table of positions (None: all).
    """
    hidden = int(block.hidden)
    patches = grid(config, image, patch)
    rows = patches + (prefix if read_positions is None else read_positions)
    pixels = area(config, patch)
    conv = Convolution(
        "patches", config.count("num_channels", 3), hidden, pixels, patches, bias=conv_bias, prefix=prefix
    )
    return Tower(
        hidden,
        (repeated(config, block, default=layers), norm(hidden, outer, VISION)),
        (conv,),
        (Embedding("positions", rows, hidden, stack=VISION),),
    )


def clip(config: Config) -> Tower:
    """CLIP's: a class token, a norm before the layers, no bias on the patches."""
    hidden, heads = config.count("hidden_size", 768), config.count("num_attention_heads", 12)
    block = layer(hidden, heads, divide(config, hidden, heads), config.count("intermediate_size", 3072))
    return plain(config, block=block, patch=32, image=224, outer=5 * hidden, prefix=1, conv_bias=False, layers=12)


def siglip(config: Config) -> Tower:
    """SigLIP's; where it keeps its head, one learnt query attends to all patches of an image."""
    hidden, heads = config.count("hidden_size", 768), config.count("num_attention_heads", 12)
    block = layer(hidden, heads, divide(config, hidden, heads), config.count("intermediate_size", 3072))
    tower = plain(config, block=block, patch=16, image=224, outer=2 * hidden, layers=12)
    if not config.flag("vision_use_head", True):
        return tower
    # The query itself is a parameter, and the head has one norm.
    pool = replace(block, positions="one", vector_params=3 * hidden)
    return replace(tower, blocks=(*tower.blocks, pool))


def pixtral(config: Config) -> Tower:
    """Pixtral's: rotary positions, RMS norms, gated networks; images of any size up to the config's."""
    hidden, heads = config.count("hidden_size", 1024), config.count("num_attention_heads", 16)
    size = config.count("head_dim", divide(config, hidden, heads))
    block = layer(
        hidden,
        heads,
        size,
        config.count("intermediate_size", 4096),
        bias=False,
        mlp_bias=False,
        gated=True,
        norms=2,
        rotary=True,
    )
    tower = plain(config, block=block, patch=16, image=1024, outer=hidden, conv_bias=False, layers=24)
    return replace(tower, embeddings=())


def internvl(config: Config) -> Tower:
    """InternViT: layer scales, a class token, optionally normed queries and keys."""
    hidden, heads = config.count("hidden_size", 1024), config.count("num_attention_heads", 16)
    norms = 4 if config.text("norm_type", "layer_norm") == "layer_norm" else 2
    if not config.flag("use_absolute_position_embeddings", True):
        raise UnsupportedArchitectureError(f"{config.where}: use_absolute_position_embeddings is false: not known")
    block = layer(
        hidden,
        heads,
        divide(config, hidden, heads),
        config.count("intermediate_size", 4096),
        bias=config.flag("attention_bias", False),
        out_bias=True,
        norms=norms + 2,
        head_norm=2 * hidden if config.flag("use_qk_norm", False) else 0,
    )
    tokens = 1 + config.flag("use_mask_token", False) + (0 if config.flag("use_mean_pooling", True) else 2)
    return plain(config, block=block, patch=14, image=448, outer=tokens * hidden, prefix=1, layers=24)


def llama4(config: Config) -> Tower:
    """Llama 4's, with the adapter that folds neighbouring patches into one."""
    hidden, heads = config.count("hidden_size", 768), config.count("num_attention_heads", 16)
    width = config.count("intermediate_size", 5632)
    block = layer(hidden, heads, divide(config, hidden, heads), width, rotary=True)
    tower = plain(config, block=block, patch=14, image=448, outer=5 * hidden, prefix=1, conv_bias=False, layers=34)
    ratio = config.number("pixel_shuffle_ratio", 0.5)
    into, out = config.count("projector_input_dim", 4096), config.count("projector_output_dim", 4096)
    adapter = merger(hidden, (width, into, out), rate=ratio * ratio, bias=False)
    return replace(tower, width=config.count("vision_output_dim", 7680), blocks=(*tower.blocks, adapter))


def moonvit(config: Config) -> Tower:
    """Kimi's MoonViT: a learnt grid of positions, resampled to each image's, and rotary ones besides."""
    names = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}
    hidden, layers, heads, width = (
        config.count(config.named(name, f"vt_{name}"), default) for name, default in names.items()
    )
    rows = [config.count(config.named(f"pos_emb_{name}", f"init_pos_emb_{name}"), 64) for name in ("height", "width")]
    block = layer(hidden, heads, divide(config, hidden, heads), width, rotary=True)
    conv = Convolution("patches", 3, hidden, area(config, 14), USUAL_PATCHES)
    return Tower(
        hidden,
        (replace(block, count=parts.layer_count(layers, config.where)), norm(hidden, 2 * hidden, VISION)),
        (conv,),
        (Embedding("positions", rows[0] * rows[1], hidden, stack=VISION),),
        guessed=f"of {USUAL_PATCHES} patches",
    )


def merger(
    hidden: float,
    widths: tuple[float, ...],
    *,
    rate: float = 1.0,
    bias: bool = True,
    norms: float = 0.0,
    positions: str = "patches",
) -> Block:
    """Linear maps from each width to the next, on merged patches; norms: norm weights, in features."""
    names = ("in_proj", "out_proj", "last_proj")
    maps = tuple(
        Linear(name, first, second, bias, REPLICATED, VISION)
        for name, first, second in zip(names, widths, widths[1:], strict=False)
    )
    return Block(1, hidden, (), VISION, vector_params=norms, extra=maps, positions=positions, rate=rate)


def qwen(config: Config, *, version: str) -> Tower:
    """The towers of Qwen2-VL ("2"), Qwen2.5-VL ("2.5", windows in most layers) and Qwen3-VL ("3", side outputs)."""
    hidden = config.count(
        "embed_dim" if version == "2" else "hidden_size", {"2": 1280, "2.5": 3584, "3": 1152}[version]
    )
    heads = config.count("num_heads", 16)
    size = divide(config, hidden, heads)
    side_length = config.count("spatial_merge_size", 2)
    cells = side_length * side_length
    patch = config.count("patch_size", 16 if version == "3" else 14)
    channels = config.count(config.named("in_channels", "in_chans"), 3)
    pixels = patch * patch * config.count("temporal_patch_size", 2)
    layers = parts.layer_count(config.count("depth", 27 if version == "3" else 32), config.where)
    tables: tuple[Embedding, ...] = ()
    patches, guessed = USUAL_PATCHES, f"of {USUAL_PATCHES} patches"
    more: tuple[Block, ...] = ()
    if version == "2":
        out = config.count("hidden_size", 3584)
        block = layer(hidden, heads, size, int(hidden * config.number("mlp_ratio", 4)), rotary=True)
        blocks: tuple[Block, ...] = (replace(block, count=layers),)
    elif version == "2.5":
        out = config.count("out_hidden_size", 3584)
        width = config.count("intermediate_size", 3420)
        window = config.count("window_size", 112) // patch // side_length * side_length
        listed = config.items("fullatt_block_indexes", [7, 15, 23, 31])
        everything = sum(1 for index in range(layers) if index in listed)
        # Most layers see windows; those listed see the whole image.
        blocks = tuple(
            replace(
                layer(hidden, heads, size, width, gated=True, norms=2, rotary=True, split=window * window * local),
                count=count,
            )
            for local, count in ((True, layers - everything), (False, everything))
            if count
        )
    else:
        out = config.count("out_hidden_size", 3584)
        block = layer(hidden, heads, size, config.count("intermediate_size", 4304), rotary=True)
        blocks = (replace(block, count=layers),)
        rows = config.count("num_position_embeddings", 2304)
        tables = (Embedding("positions", rows, hidden, stack=VISION),)
        patches, guessed = rows, f"of {rows} patches, the size of the table of positions"
        outputs = config.items("deepstack_visual_indexes", [8, 16, 24])
        beside = merger(hidden, (cells * hidden, cells * hidden, out), rate=1 / cells, norms=2 * cells * hidden)
        more = (replace(beside, count=len(outputs)),) if outputs else ()
    last = merger(
        hidden, (cells * hidden, cells * hidden, out), rate=1 / cells, norms=hidden * (1 if version == "2.5" else 2)
    )
    conv = Convolution("patches", channels, hidden, pixels, patches, bias=version == "3")
    return Tower(out, (*blocks, *more, last), (conv,), tables, guessed)


def before(tower: Tower, model: ModelSpec) -> ModelSpec:
    """A language model with a tower in front of it."""
    guessed = f"unless told otherwise, an image is {tower.guessed}" if tower.guessed else ""
    seeing = replace(
        model,
        blocks=(*tower.blocks, *model.blocks),
        embeddings=(*tower.embeddings, *model.embeddings),
        convs=(*tower.convs, *model.convs),
        notes=(*(note for note in model.notes if note != NO_VISION), *((guessed,) if guessed else ())),
    )
    return layers_apart(seeing)


TOWERS: dict[str, Callable[[Config], Tower]] = {
    "clip_vision_model": clip,
    "pixtral": pixtral,
    "siglip_vision_model": siglip,
}


def tower_of(config: Config, default: str) -> Tower:
    """The tower of a config that names its model type; default: where it names none."""
    kind = config.text("model_type", default)
    if kind not in TOWERS:
        raise UnsupportedArchitectureError(
            f"{config.where}: vision model_type {kind[:60]!r} is not known; known are {', '.join(TOWERS)}"
        )
    return TOWERS[kind](config)
