"""Networks of each family with random weights: plain torch, so that what is measured is what people run.

`network(parameters, device)` gives the module, a batch, and its loss.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it
from torch.utils.checkpoint import checkpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

HEAD_SIZE = 32
CLASSES = 100
# A recommender's numbers of each sample (Criteo has 13), and the batches of the log it goes round.
NUMBERS, LOG_STEPS = 13, 128


class Attention(nn.Module):
    """Fused self-attention of `heads` heads."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        """x: (batch, length, width)."""
        batch, length, width = x.shape
        parts = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=self.causal)
        return self.out(seen.transpose(1, 2).reshape(batch, length, width))


class Experts(nn.Module):
    """A mixture of experts: each token goes through its two best, weighted by the router."""

    def __init__(self, width: int, experts: int, active: int = 2) -> None:
        super().__init__()
        self.active = active
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(feed_forward(width, 4 * width) for _ in range(experts))

    def forward(self, x: Any) -> Any:
        """x: (batch, length, width). Tokens are dealt out evenly by rank, so that shapes do not depend on values."""
        flat = x.reshape(-1, x.shape[-1])
        weights = torch.softmax(self.router(flat), -1)
        share = flat.shape[0] * self.active // len(self.experts)
        result = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            weight, tokens = torch.topk(weights[:, index], share)
            result = result.index_add(0, tokens, expert(flat[tokens]).to(flat.dtype) * weight[:, None].to(flat.dtype))
        return result.view_as(x)


def feed_forward(width: int, inner: int) -> nn.Module:
    """Two products with a GELU between."""
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class Block(nn.Module):
    """Attention and feed-forward, each after its norm and beside a residual."""

    def __init__(self, width: int, *, causal: bool, experts: int = 0, heads: int = 0, inner: int = 0) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads or width // HEAD_SIZE, causal=causal)
        self.mlp = Experts(width, experts) if experts else feed_forward(width, inner or 4 * width)

    def forward(self, x: Any) -> Any:
        """x: (batch, length, width)."""
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class Transformer(nn.Module):
    """Tokens to scores of the vocabulary: a decoder if causal, else an encoder with a masked-token head."""

    def __init__(
        self,
        layers: int,
        width: int,
        vocabulary: int,
        length: int,
        *,
        causal: bool,
        experts: int = 0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, causal=causal, experts=experts) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Any) -> Any:
        """tokens: (batch, length), whole numbers."""
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute and self.training else block(x)
        return self.head(self.norm(x))


class VisionTransformer(nn.Module):
    """Patches of an image through an encoder to classes."""

    def __init__(self, layers: int, width: int, side: int, patch: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(Block(width, causal=False) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Any) -> Any:
        """images: (batch, 3, side, side)."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.to(x.dtype).expand(x.shape[0], -1, -1), x), 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch norms beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(outputs)
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_2 = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Any) -> Any:
        """x: (batch, channels, height, width)."""
        y = torch.relu(self.norm_1(self.conv_1(x)))
        return torch.relu(self.norm_2(self.conv_2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet of basic blocks; (2, 2, 2, 2) of width 64 is ResNet-18."""

    def __init__(self, blocks: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        stages: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            for index in range(count):
                stages.append(Residual(inputs, outputs, 2 if stage and not index else 1))
                inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, images: Any) -> Any:
        """images: (batch, 3, side, side)."""
        return self.head(self.stages(self.stem(images)).mean((2, 3)))


class Recurrent(nn.Module):
    """A language model of LSTM layers."""

    def __init__(self, layers: int, width: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Any) -> Any:
        """tokens: (batch, length), whole numbers."""
        return self.head(self.layers(self.tokens(tokens))[0])


class Recommender(nn.Module):
    """DLRM: numbers through a perceptron, categories through embedding bags, all their dot products through another perceptron.

    Each step looks up the next rows of a log.
    """

    pairs: torch.Tensor

    def __init__(self, tables: int, rows: int, width: int, *, sparse: bool) -> None:
        super().__init__()
        self.bottom = perceptron((NUMBERS, 4 * width, 2 * width, width))
        self.bags = nn.ModuleList(nn.EmbeddingBag(rows, width, mode="sum", sparse=sparse) for _ in range(tables))
        self.top = perceptron((width + (tables + 1) * tables // 2, 8 * width, 4 * width, 1))
        self.register_buffer("pairs", torch.tril_indices(tables + 1, tables + 1, -1), persistent=False)
        self.step = 0

    def forward(self, batch: Any) -> Any:
        """batch: numbers (batch, numbers) and a log of rows (steps, tables, batch, rows of a bag)."""
        numbers, log = batch
        rows, self.step = log[self.step % len(log)], self.step + 1
        dense = torch.relu(self.bottom(numbers))
        vectors = torch.stack([dense, *(bag(one) for bag, one in zip(self.bags, rows.unbind(), strict=True))], 1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat((dense, dots), 1))


class Speech(nn.Module):
    """DeepSpeech 2: spectrograms through two convolutions and bidirectional GRU layers to letters."""

    def __init__(self, layers: int, width: int, bands: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 32, (41, 11), (2, 2), (20, 5), bias=False), nn.BatchNorm2d(32), nn.Hardtanh(0.0, 20.0),
            nn.Conv2d(32, 32, (21, 11), (2, 1), (10, 5), bias=False), nn.BatchNorm2d(32), nn.Hardtanh(0.0, 20.0),
        )  # fmt: skip
        self.layers = nn.GRU(32 * (bands // 4), width, layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, spectrograms: Any) -> Any:
        """spectrograms: (batch, 1, bands, frames)."""
        x = self.convolutions(spectrograms).flatten(1, 2).transpose(1, 2)
        return self.head(self.layers(x)[0])


def perceptron(widths: tuple[int, ...]) -> nn.Module:
    """Linear layers with ReLUs between; the last one's results are logits."""
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def network(parameters: Mapping[str, Any], device: str) -> tuple[nn.Module, tuple[Any, Any], Callable[[Any, Any], Any]]:
    """The module, one batch (inputs, targets), and the loss of its family."""
    with torch.device(device):
        module, data, loss = _parts(parameters)
        if parameters.get("channels_last"):
            _as_channels_last(module)
            data = data[0].contiguous(memory_format=torch.channels_last), data[1]
        return module, data, loss


def _as_channels_last(module: nn.Module) -> None:
    """What `module.to(memory_format=...)` does, also where tensors are shapes only."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.weight = nn.Parameter(part.weight.detach().contiguous(memory_format=torch.channels_last))


def _parts(parameters: Mapping[str, Any]) -> tuple[nn.Module, tuple[Any, Any], Callable[[Any, Any], Any]]:
    loss: Callable[[Any, Any], Any]
    family, batch = parameters["family"], parameters["batch"]

    def tokens() -> Any:
        return torch.randint(0, parameters["vocabulary"], (batch, parameters["length"]))

    def token_loss(scores: Any, targets: Any) -> Any:
        return F.cross_entropy(scores.flatten(0, 1), targets.flatten())

    def images() -> tuple[Any, Any]:
        side = parameters["side"]
        return torch.randn(batch, 3, side, side), torch.randint(0, CLASSES, (batch,))

    if family in ("gpt", "moe", "bert"):
        module: nn.Module = Transformer(
            parameters["layers"], parameters["width"], parameters["vocabulary"], parameters["length"],
            causal=family != "bert", experts=parameters.get("experts", 0), recompute=bool(parameters.get("recompute")),
        )  # fmt: skip
        data, loss = (tokens(), tokens()), token_loss
    elif family == "lstm":
        module = Recurrent(parameters["layers"], parameters["width"], parameters["vocabulary"])
        data, loss = (tokens(), tokens()), token_loss
    elif family == "vit":
        module = VisionTransformer(parameters["layers"], parameters["width"], parameters["side"], parameters["patch"])
        data, loss = images(), F.cross_entropy
    elif family == "resnet":
        module = ResNet(tuple(parameters["blocks"]), parameters["width"])
        data, loss = images(), F.cross_entropy
    elif family == "dlrm":
        tables, rows = parameters["tables"], parameters["rows"]
        module = Recommender(tables, rows, parameters["width"], sparse=parameters["sparse"])
        log = torch.randint(0, rows, (LOG_STEPS, tables, batch, parameters["bag"]))
        data = (torch.randn(batch, NUMBERS), log), torch.randint(0, 2, (batch, 1)).float()
        loss = F.binary_cross_entropy_with_logits
    elif family == "speech":
        bands, frames = parameters["bands"], parameters["frames"]
        module = Speech(parameters["layers"], parameters["width"], bands)
        data = torch.randn(batch, 1, bands, frames), torch.randint(0, CLASSES, (batch, frames // 2))
        loss = token_loss
    elif family == "mlp":
        widths = tuple(parameters["widths"])
        module = perceptron(widths)
        inputs = torch.randn(batch, widths[0])
        if widths[-1] == 1:
            # Logits against float labels of the same shape.
            data = inputs, torch.randint(0, 2, (batch, 1)).float()
            loss = F.binary_cross_entropy_with_logits
        else:
            data, loss = (inputs, torch.randint(0, widths[-1], (batch,))), F.cross_entropy
    else:
        raise ValueError(f"no family {family!r}")
    return module, data, loss
