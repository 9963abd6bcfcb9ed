"""Networks of every kind, written out: what tests trace, and what `capacity estimate --module` is shown on."""

import torch
from torch import nn


def perceptron():
    """1000-500-250-100-1."""
    return nn.Sequential(
        nn.Linear(1000, 500),
        nn.ReLU(),
        nn.Linear(500, 250),
        nn.ReLU(),
        nn.Linear(250, 100),
        nn.ReLU(),
        nn.Linear(100, 1),
    )


class Bottleneck(nn.Module):
    def __init__(self, into, width, stride, groups=1):
        super().__init__()
        out = width * 4
        self.body = nn.Sequential(
            nn.Conv2d(into, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.short = nn.Identity()
        if stride > 1 or into != out:
            self.short = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        return torch.relu(self.body(x) + self.short(x))


def resnet50(groups=1):
    """ResNet-50 (v1.5): 25,557,032 parameters, 4.09 GMAC an image of 224 x 224."""
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    into = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for at in range(depth):
            layers.append(Bottleneck(into, width, stride if at == 0 else 1, groups))
            into = width * 4
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class Dlrm(nn.Module):
    """A recommender: look-ups summed in bags, a perceptron for numbers, dot products between all of them, a perceptron above."""

    def __init__(self, tables=26, rows=10000, width=64, dense=13):
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(rows, width, mode="sum") for _ in range(tables))
        self.bottom = nn.Sequential(
            nn.Linear(dense, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, width), nn.ReLU()
        )
        pairs = (tables + 1) * tables // 2
        self.top = nn.Sequential(
            nn.Linear(width + pairs, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 1)
        )

    def forward(self, numbers, ids):
        low = self.bottom(numbers)
        all_ = torch.stack([low, *(bag(ids[:, at]) for at, bag in enumerate(self.bags))], 1)
        products = torch.bmm(all_, all_.transpose(1, 2))
        i, j = torch.tril_indices(all_.shape[1], all_.shape[1], -1, device=products.device)
        return self.top(torch.cat([low, products[:, i, j]], 1))


class Residual(nn.Module):
    def __init__(self, into, out, time):
        super().__init__()
        self.one = nn.Sequential(nn.GroupNorm(32, into), nn.SiLU(), nn.Conv2d(into, out, 3, 1, 1))
        self.time = nn.Linear(time, out)
        self.two = nn.Sequential(nn.GroupNorm(32, out), nn.SiLU(), nn.Conv2d(out, out, 3, 1, 1))
        self.short = nn.Identity() if into == out else nn.Conv2d(into, out, 1)

    def forward(self, x, t):
        return self.two(self.one(x) + self.time(nn.functional.silu(t))[:, :, None, None]) + self.short(x)


class Attention(nn.Module):
    def __init__(self, width, heads, context=None):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(context or width, width, bias=False) for _ in range(2))
        self.out = nn.Linear(width, width)

    def forward(self, x, context=None):
        context = x if context is None else context
        q, k, v = (
            f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f, y in ((self.q, x), (self.k, context), (self.v, context))
        )
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Geglu(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.into, self.out = nn.Linear(width, width * 8), nn.Linear(width * 4, width)

    def forward(self, x):
        a, b = self.into(x).chunk(2, -1)
        return self.out(a * nn.functional.gelu(b))


class Spatial(nn.Module):
    """A transformer over positions that also attends to a text."""

    def __init__(self, width, heads, context):
        super().__init__()
        self.norm, self.into, self.out = nn.GroupNorm(32, width), nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross, self.ffn = Attention(width, heads), Attention(width, heads, context), Geglu(width)

    def forward(self, x, text):
        y = self.into(self.norm(x)).flatten(2).transpose(1, 2)
        y = y + self.own(self.norms[0](y))
        y = y + self.cross(self.norms[1](y), text)
        y = y + self.ffn(self.norms[2](y))
        return x + self.out(y.transpose(1, 2).unflatten(2, x.shape[2:]))


class DiffusionUNet(nn.Module):
    """The U-Net of Stable Diffusion 1: 859,520,964 parameters, over latents of 4 x 64 x 64 and a text of 77 x 768."""

    def __init__(self, widths=(320, 640, 1280, 1280), context=768, heads=8):
        super().__init__()
        time = widths[0] * 4
        self.width = widths[0]
        self.embed = nn.Sequential(nn.Linear(widths[0], time), nn.SiLU(), nn.Linear(time, time))
        self.into = nn.Conv2d(4, widths[0], 3, 1, 1)
        self.down, self.up, kept, width = nn.ModuleList(), nn.ModuleList(), [widths[0]], widths[0]
        for level, out in enumerate(widths):
            last = level == len(widths) - 1
            for _ in range(2):
                self.down.append(
                    nn.ModuleList([Residual(width, out, time), *([] if last else [Spatial(out, heads, context)])])
                )
                width = out
                kept.append(width)
            if not last:
                self.down.append(nn.ModuleList([nn.Conv2d(width, width, 3, 2, 1)]))
                kept.append(width)
        self.middle = nn.ModuleList(
            [Residual(width, width, time), Spatial(width, heads, context), Residual(width, width, time)]
        )
        for level, out in reversed(list(enumerate(widths))):
            deepest = level == len(widths) - 1
            for at in range(3):
                parts = [Residual(width + kept.pop(), out, time), *([] if deepest else [Spatial(out, heads, context)])]
                width = out
                if at == 2 and level:
                    parts.append(nn.Conv2d(width, width, 3, 1, 1))
                self.up.append(nn.ModuleList(parts))
        self.out = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 4, 3, 1, 1))

    def forward(self, latents, times, text):
        frequencies = torch.exp(-9.21 * torch.arange(self.width // 2, device=latents.device) / (self.width // 2))
        angles = times[:, None].float() * frequencies
        t = self.embed(torch.cat([angles.cos(), angles.sin()], -1))
        x = self.into(latents)
        kept = [x]
        for parts in self.down:
            x = self.through(parts, x, t, text)
            kept.append(x)
        x = self.through(self.middle, x, t, text)
        for parts in self.up:
            x = self.through(parts, torch.cat([x, kept.pop()], 1), t, text)
        return self.out(x)

    @staticmethod
    def through(parts, x, t, text):
        for part in parts:
            if isinstance(part, Residual):
                x = part(x, t)
            elif isinstance(part, Spatial):
                x = part(x, text)
            elif part.stride[0] > 1:
                x = part(x)
            else:
                x = part(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class Recurrent(nn.Module):
    """Layers of a recurrent cell over a sequence, and a classifier of its end."""

    def __init__(self, kind="LSTM", width=64, hidden=128, layers=2, both=False, projection=0):
        super().__init__()
        extra = {"proj_size": projection} if projection else {}
        self.body = getattr(nn, kind)(width, hidden, layers, batch_first=True, bidirectional=both, **extra)
        self.head = nn.Linear((projection or hidden) * (2 if both else 1), 10)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


class Cells(nn.Module):
    """A decoder that steps through time itself."""

    def __init__(self, cell=nn.LSTMCell, hidden=48):
        super().__init__()
        self.cell, self.hidden = cell(32, hidden), hidden

    def forward(self, x):
        state = x.new_zeros(len(x), self.hidden)
        state = (state, state) if isinstance(self.cell, nn.LSTMCell) else state
        for at in range(x.shape[1]):
            state = self.cell(x[:, at], state)
        return state[0] if isinstance(state, tuple) else state


def volume():
    """Convolutions in three dimensions, strided, dilated, transposed."""
    return nn.Sequential(
        nn.Conv3d(1, 32, 3, 1, 1), nn.InstanceNorm3d(32, affine=True), nn.LeakyReLU(), nn.Conv3d(32, 64, 3, 2, 1), nn.LeakyReLU(),
        nn.Conv3d(64, 64, 3, 1, 2, dilation=2), nn.LeakyReLU(), nn.ConvTranspose3d(64, 32, 2, 2), nn.Conv3d(32, 3, 1),
    )  # fmt: skip


def waveform():
    """Convolutions in one dimension, grouped and depthwise, and an upsampling one."""
    return nn.Sequential(
        nn.Conv1d(1, 64, 10, 5), nn.GELU(), nn.Conv1d(64, 128, 3, 2), nn.GELU(), nn.Conv1d(128, 128, 7, padding=3, groups=128),
        nn.Conv1d(128, 128, 5, padding=2, groups=8), nn.GELU(), nn.ConvTranspose1d(128, 64, 8, 4, groups=4), nn.AvgPool1d(2),
    )  # fmt: skip
