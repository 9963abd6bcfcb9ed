"""A decoder with a static cache, and the ways to compress it."""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from capacity.measurement.kernels.quantised import linear as quantised_linear
from capacity.measurement.kernels.sparse import linear as sparse_linear
from capacity.measurement.kernels.sparse import pruned, pruned_2of4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEAD_SIZE = 64


class Cache(nn.Module):
    """Keys and values of past tokens; in int8 with a scale for each token and head, if small."""

    values: Any
    scales: Any

    def __init__(self, batch: int, heads: int, tokens: int, *, small: bool, dtype: Any, device: Any) -> None:
        super().__init__()
        self.small = small
        shape = (2, batch, heads, tokens, HEAD_SIZE)
        self.dtype = dtype
        self.register_buffer("values", torch.zeros(shape, dtype=torch.int8 if small else dtype, device=device))
        self.register_buffer("scales", torch.ones((*shape[:-1], 1), dtype=dtype, device=device) if small else None)

    def forward(self, new: Any, place: int) -> Any:
        """Store new (2, batch, heads, tokens, size) at `place` and return all up to it."""
        ends = place + new.shape[3]
        if not self.small:
            self.values[:, :, :, place:ends] = new
            return self.values[:, :, :, :ends]
        scale = new.abs().amax(-1, keepdim=True).clamp_min(1e-6) / 127.0
        self.values[:, :, :, place:ends] = (new / scale).round().to(torch.int8)
        self.scales[:, :, :, place:ends] = scale
        return self.values[:, :, :, :ends].to(self.dtype) * self.scales[:, :, :, :ends]


class Layer(nn.Module):
    """Attention against the cache and a gated feed-forward."""

    def __init__(self, width: int, inner: int, cache: Cache) -> None:
        super().__init__()
        self.heads = width // HEAD_SIZE
        self.cache = cache
        self.norm_1, self.norm_2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Any, place: int) -> Any:
        """x: (batch, tokens, width)."""
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm_1(x)).view(batch, tokens, 3, self.heads, HEAD_SIZE).permute(2, 0, 3, 1, 4)
        keys, values = self.cache(parts[1:], place)
        seen = F.scaled_dot_product_attention(parts[0], keys, values, is_causal=tokens > 1)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, tokens, width))
        gate, up = self.up(self.norm_2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    """Tokens at a place to scores of the vocabulary."""

    layers: Any  # a list of Layer

    def __init__(self, layers: int, width: int, inner: int, vocabulary: int, cache_tokens: int, batch: int) -> None:
        super().__init__()
        self.arguments = (layers, width, inner, vocabulary, cache_tokens, batch)
        self.shape = (batch, cache_tokens)
        self.tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(
            Layer(width, inner, self._cache(width // HEAD_SIZE, small=False, dtype=torch.float32))
            for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def _cache(self, heads: int, *, small: bool, dtype: Any, device: Any = None) -> Cache:
        batch, tokens = self.shape
        return Cache(batch, heads, tokens, small=small, dtype=dtype, device=device)

    def forward(self, tokens: Any, place: int) -> Any:
        """tokens: (batch, length), the first of them at `place`."""
        x = self.tokens(tokens)
        for layer in self.layers:
            x = layer(x, place)
        return self.head(self.norm(x[:, -1:]))

    def weight_bytes(self) -> float:
        """Bytes of all weights one token reads: look-up tables count one row."""
        return float(sum(_linear_bytes(module) for module in self.modules() if _is_product(module)))

    def cache_bytes(self) -> float:
        """Bytes of keys and values a token at the end of the cache reads."""
        return float(
            sum(
                buffer.numel() * buffer.element_size()
                for layer in self.layers
                for buffer in layer.cache.buffers()
                if buffer is not None
            )
        )

    def flop(self, tokens: int) -> float:
        """Products of a forward pass over `tokens` in all, the head on the last of each sequence; zeros count, attention does not."""
        counts = {id(part): _elements(part) for part in self.modules() if _is_product(part)}
        head = sum(_elements(part) for part in self.head.modules() if _is_product(part))
        return 2.0 * ((sum(counts.values()) - head) * tokens + head * self.shape[0])


class Compressed(nn.Module):
    """A product with a compressed weight, by a kernel of torch's own."""

    def __init__(self, form: str, weight: Any) -> None:
        super().__init__()
        self.form = form
        self.outputs, self.inputs = weight.shape
        self.matrix: Any = None
        if form.startswith("csr"):
            self.call, self.stored, self.dtype = sparse_linear(weight, float(form.split("-")[1]))
        elif form == "2of4":
            from torch.sparse import to_sparse_semi_structured

            self.matrix = to_sparse_semi_structured(pruned_2of4(weight).to(torch.bfloat16))
            self.stored, self.dtype = int(weight.numel() * 1.125), torch.bfloat16
        else:
            copy, self.stored, self.dtype = quantised_linear(form, weight)
            self.call = copy()

    def forward(self, x: Any) -> Any:
        """x: (..., inputs) in any float format; the result has the format of x."""
        flat = x.reshape(-1, self.inputs).to(self.dtype)
        result = self.call(flat) if self.matrix is None else (self.matrix @ flat.t()).t()
        return result.to(x.dtype).view(*x.shape[:-1], self.outputs)


def compress(module: Decoder, form: str, *, small_cache: bool = False) -> Decoder:
    """The decoder in another form; it may share, or take, the weights of the one given."""
    if form.startswith("narrow"):
        share = float(form.split("-")[1])
        return _narrow(module, share)
    made = _twin(module)
    wide = form in ("bf16", "int8-weight", "int4-weight", "2of4")
    dtype = torch.bfloat16 if wide else torch.float32
    for part in made.modules():
        for name, weight in list(part._parameters.items()):
            if weight is not None:
                setattr(part, name, nn.Parameter(weight.detach().to(dtype), requires_grad=False))
    for layer in made.layers:
        old = layer.cache
        layer.cache = made._cache(layer.heads, small=small_cache, dtype=dtype, device=old.values.device)
    if form.startswith("pruned"):
        for linear in _products(made):
            linear.weight.data = pruned(linear.weight.data, float(form.split("-")[1]))
    elif form.startswith("low-rank"):
        _replace(made, lambda linear: _low_rank(linear, float(form.split("-")[2])))
    elif form not in ("fp32", "bf16"):
        _replace(made, lambda linear: Compressed(form, linear.weight.data))
    return made


def _twin(module: Decoder) -> Decoder:
    """Another decoder of the same weights, not copied."""
    with torch.device(module.tokens.weight.device):
        made = Decoder(*module.arguments)
    made.load_state_dict(module.state_dict(), assign=True)
    return made


def _narrow(module: Decoder, share: float) -> Decoder:
    """Structured pruning: the strongest inner units of each feed-forward are kept."""
    made = _twin(module)
    for layer in made.layers:
        inner = layer.down.in_features
        keep = int(inner * share)
        strength = layer.down.weight.data.norm(dim=0)
        kept = strength.topk(keep).indices.sort().values
        both = torch.cat((kept, kept + inner))
        up, down = layer.up.weight.data[both], layer.down.weight.data[:, kept]
        layer.up = nn.Linear(up.shape[1], up.shape[0], bias=False, device=up.device)
        layer.up.weight.data = up.contiguous()
        layer.down = nn.Linear(down.shape[1], down.shape[0], bias=False, device=down.device)
        layer.down.weight.data = down.contiguous()
    return made


def _low_rank(linear: nn.Linear, share: float) -> nn.Module:
    """Two thin products in place of a wide one; rank is a share of the smaller side."""
    weight = linear.weight.data.float()
    rank = max(int(min(weight.shape) * share), 1)
    left, values, right = torch.svd_lowrank(weight, rank, niter=2)
    first = nn.Linear(weight.shape[1], rank, bias=False, device=weight.device)
    second = nn.Linear(rank, weight.shape[0], bias=False, device=weight.device)
    first.weight.data = (values[:, None] * right.t()).contiguous()
    second.weight.data = left.contiguous()
    return nn.Sequential(first, second)


def stored_bytes(module: nn.Module, folder: str | None = None) -> int:
    """Size of the saved weights, as compressed products store them."""
    import shutil
    import tempfile

    folder = folder or tempfile.mkdtemp()
    path = os.path.join(folder, "weights.pt")
    try:
        plain = {name: value for name, value in module.state_dict().items() if "cache." not in name}
        torch.save(plain, path)
        return os.path.getsize(path) + sum(part.stored for part in module.modules() if isinstance(part, Compressed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_product(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Compressed))


def _products(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def _elements(module: Any) -> int:
    if isinstance(module, Compressed):
        return int(module.outputs * module.inputs)
    return int(module.weight.numel())


def _linear_bytes(module: Any) -> int:
    if isinstance(module, Compressed):
        return int(module.stored)
    return int(module.weight.numel() * module.weight.element_size())


def _replace(module: nn.Module, make: Any) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, make(child))
        else:
            _replace(child, make)
