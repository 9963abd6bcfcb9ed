"""Preparation of data on one core: tokenising, filtering, MinHash, decoding of pictures, spectra of sound.

Everything is made on the spot: a vocabulary trained on text drawn from Zipf's law, pictures whose spectrum falls as that of
photographs does.
"""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

VOCABULARY, DISTINCT_WORDS = 32000, 40000
TRAINING_WORDS = 400_000
# MinHash as FineWeb does it: 14 bands of 8 hashes of 5 words.
BANDS, ROWS, WORDS = 14, 8, 5
PRIME = (1 << 61) - 1
SAMPLE_RATE, WINDOW, HOP, MELS = 16000, 400, 160, 80


def text(kibibytes: float, seed: int = 23) -> str:
    """Words of Zipf's law in sentences and lines: about `kibibytes` of them."""
    import numpy as np

    chance = np.random.default_rng(seed)
    words = _words()
    # Mean length of a drawn word is near five letters.
    ranks = np.minimum(chance.zipf(1.25, int(kibibytes * 1024 / 5.0) + 64), len(words)) - 1
    parts: list[str] = []
    length = 0
    for index, rank in enumerate(ranks):
        word = words[rank]
        word = word if index % 12 else word.capitalize()
        parts.append(word + ("." if index % 12 == 11 else "") + ("\n" if index % 60 == 59 else " "))
        length += len(parts[-1])
        if length >= kibibytes * 1024:
            break
    return "".join(parts)


def _words() -> list[str]:
    import numpy as np

    chance = np.random.default_rng(29)
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    share = 1.0 / np.arange(1, len(letters) + 1) ** 0.7
    share /= share.sum()
    # Frequent words are short.
    lengths = np.clip(chance.normal(2.5 + np.log10(np.arange(1, DISTINCT_WORDS + 1)) * 1.4, 1.3), 1, 14).astype(int)
    drawn = "".join(chance.choice(letters, int(lengths.sum()), p=share))
    ends = np.cumsum(lengths)
    return [drawn[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def photo(width: int, height: int) -> Any:
    """A colour picture whose amplitudes fall with one over frequency, in eight bits."""
    import numpy as np

    chance = np.random.default_rng(31)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    fall = 1.0 / np.maximum(np.hypot(rows, columns), 1.0 / max(width, height))
    light = np.fft.irfft2(np.exp(2j * np.pi * chance.random(fall.shape)) * fall, s=(height, width))
    tint = [np.fft.irfft2(np.exp(2j * np.pi * chance.random(fall.shape)) * fall**1.5, s=(height, width)) for _ in "rgb"]
    planes = np.stack([light / light.std() + 0.3 * one / one.std() for one in tint], axis=-1)
    return np.clip(planes * 48.0 + 128.0, 0, 255).astype(np.uint8)


def _text_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    for work in ("tokenise", "filter", "minhash"):
        for kibibytes in (1, 4, 16, 64, 256) if profile == FULL else (16,):
            yield {"work": work, "KiB": kibibytes}


def _build_text(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001 - every kernel's signature
    document = text(parameters["KiB"])
    size = float(len(document.encode()))
    work = parameters["work"]
    if work == "tokenise":
        tokenizer = _tokenizer()
        return Work(
            run=lambda: tokenizer.encode(document),
            moved_bytes=size,
            facts=lambda: {"bytes_per_token": size / len(tokenizer.encode(document).ids)},
        )
    if work == "filter":
        return Work(run=lambda: quality(document), moved_bytes=size)
    return Work(run=lambda: signature(document), moved_bytes=size)


def _tokenizer() -> Any:
    import os

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(text(TRAINING_WORDS * 5 / 1024, seed=37).splitlines(), trainer)
    return tokenizer


def quality(document: str) -> bool:
    """Rules of thumb that throw pages away (Gopher's): length, words, symbols, bullet points, repeated lines."""
    words = document.split()
    if not 50 <= len(words) <= 100_000:
        return False
    mean = sum(map(len, words)) / len(words)
    symbols = document.count("#") + document.count("...")
    lines = document.splitlines()
    bullets = sum(line.lstrip().startswith(("-", "*", "•")) for line in lines)
    ended = sum(line.rstrip().endswith("…") for line in lines)
    letters = sum(any(letter.isalpha() for letter in word) for word in words)
    common = sum(word in ("the", "be", "to", "of", "and", "that", "have", "with") for word in words)
    repeated = 1.0 - len(set(lines)) / len(lines)
    return (
        3.0 <= mean <= 10.0
        and symbols / len(words) < 0.1
        and bullets / len(lines) < 0.9
        and ended / len(lines) < 0.3
        and letters / len(words) > 0.8
        and common >= 2
        and repeated < 0.3
    )


def signature(document: str) -> Any:
    """MinHash of a document: the least of each of BANDS x ROWS hashes over its runs of WORDS words."""
    from zlib import crc32

    import numpy as np

    words = document.lower().split()
    runs = np.fromiter(
        (crc32(" ".join(words[start : start + WORDS]).encode()) for start in range(max(len(words) - WORDS + 1, 1))),
        dtype=np.uint64,
    )
    chance = np.random.default_rng(41)
    factors = chance.integers(1, PRIME, (BANDS * ROWS, 1), dtype=np.uint64)
    shifts = chance.integers(0, PRIME, (BANDS * ROWS, 1), dtype=np.uint64)
    least = np.full(BANDS * ROWS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(runs), 512):  # a piece that stays in the cache
        hashed = (runs[start : start + 512][None, :] * factors + shifts) % np.uint64(PRIME)
        np.minimum(least, hashed.min(axis=1), out=least)
    return least


def _image_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    sizes = ((256, 192), (500, 375), (800, 600), (1280, 960), (1920, 1440)) if profile == FULL else ((500, 375),)
    for work in ("decode", "decode-resize") if profile == FULL else ("decode",):
        for width, height in sizes:
            yield {"work": work, "width": width, "height": height}


def _build_image(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001
    from io import BytesIO

    from PIL import Image

    width, height = int(parameters["width"]), int(parameters["height"])
    file = BytesIO()
    Image.fromarray(photo(width, height)).save(file, "JPEG", quality=90)
    packed = file.getvalue()

    def decode() -> Any:
        picture = Image.open(BytesIO(packed))
        picture.load()
        return picture

    def resize() -> Any:
        return decode().resize((224, 224), Image.Resampling.BILINEAR)

    return Work(
        run=decode if parameters["work"] == "decode" else resize,
        moved_bytes=3.0 * width * height,
        facts=lambda: {"file_bytes": len(packed)},
    )


def _sound_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu" or profile != FULL:
        return
    for seconds in (2, 5, 10, 30):
        yield {"work": "log-mel", "seconds": seconds}


def _build_sound(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001
    import torch

    samples = torch.randn(int(parameters["seconds"]) * SAMPLE_RATE)
    window = torch.hann_window(WINDOW)
    filters = torch.rand(MELS, WINDOW // 2 + 1)

    def run() -> Any:
        spectrum = torch.stft(samples, WINDOW, HOP, window=window, return_complex=True)
        return (filters @ spectrum.abs().square_()).clamp_min_(1e-10).log10_()

    return Work(run=run, moved_bytes=2.0 * samples.numel())


FAMILIES = (
    Kernel("text", "tokenising, filtering and MinHash of a document", _text_cases, _build_text, kind="preparation"),
    Kernel("picture", "decoding of JPEG pictures", _image_cases, _build_image, kind="preparation"),
    Kernel("sound", "log-mel spectra", _sound_cases, _build_sound, kind="preparation"),
)
