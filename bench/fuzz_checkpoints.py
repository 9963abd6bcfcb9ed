"""Damages real checkpoints at random and reads them: `python bench/fuzz_checkpoints.py 20000 [seed]`.

Every file is read or refused in one line, by a reader that unpickles nothing; anything else stops the run with the file kept.
Files that are still read after damage are those whose names or metadata were hit.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))
import test_checkpoints as cases

from capacity.errors import CapacityError
from capacity.importers.graphs.checkpoint import read_checkpoint


def seeds(folder):
    """A whole file of each format, as bytes."""
    state = cases.weights()
    cases.save_file(state, folder / "a.safetensors")
    cases.torch.save(state, folder / "a.pt")
    text = cases.struct.pack("<Q", 5) + b"llama"
    rows = [("a.weight", (64, 100), 2, 3600), ("norm", (64,), 0, 256), ("out", (256, 4), 14, 840)]
    words = cases.struct.pack("<IQ", 8, 2) + text + text
    (folder / "a.gguf").write_bytes(cases.gguf(rows, [("general.architecture", 8, text), ("tokens", 9, words)]))
    return {name: (folder / name).read_bytes() for name in ("a.safetensors", "a.pt", "a.gguf")}


def damaged(data, random):
    """Flipped, overwritten, cut, doubled or spliced bytes, mostly where sizes are written."""
    out = bytearray(data)
    for _ in range(int(random.integers(1, 10))):
        near = min(len(out), 2000)
        at = int(random.integers(0, near)) if random.random() < 0.6 else len(out) - 1 - int(random.integers(0, near))
        what = random.random()
        if what < 0.5:
            out[at] = int(random.integers(0, 256))
        elif what < 0.7:
            out[at : at + 8] = int(2 ** random.uniform(0, 63)).to_bytes(8, "little")
        elif what < 0.8:
            out = out[: max(at, 1)]
        elif what < 0.9:
            out[at:at] = out[at : at + int(random.integers(1, 200))]
        else:
            out[at : at + 4] = bytes(random.integers(0, 256, 4, dtype=np.uint8))
    return bytes(out)


def main(count, seed):
    """Read `count` damaged files and say how many of each format were read and refused."""
    random, begun, longest = np.random.default_rng(seed), time.time(), 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = seeds(folder)
        found = {name: [0, 0] for name in files}
        for at in range(count):
            which = list(files)[at % len(files)]
            path = folder / f"damaged-{which}"
            path.write_bytes(damaged(files[which], random))
            started = time.perf_counter()
            try:
                read_checkpoint(str(path))
                found[which][0] += 1
            except CapacityError as error:
                if "\n" in str(error):
                    raise
                found[which][1] += 1
            longest = max(longest, time.perf_counter() - started)
    for which, (read, refused) in found.items():
        print(f"{which:<14} {read + refused:>7} damaged: {read:>6} still read, {refused:>7} refused in one line")
    print(f"{count} files in {time.time() - begun:.0f} s, the slowest {longest * 1e3:.0f} ms; no crash, nothing run")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
