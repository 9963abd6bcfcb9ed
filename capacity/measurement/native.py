"""Two probes in C, compiled where there is a compiler: the clock, and the STREAM triad this project's bandwidth is held against."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes

_SOURCE = r"""
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define ONE a += b; __asm__ volatile("" : "+r"(a))  /* the barrier keeps the additions apart */

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }

/* Cycles a second: the fastest of ten chains of dependent additions, which no processor starts more than one of a cycle. */
double clock_hz(void) {
    double best = 0.0;
    for (int round = 0; round < 10; round++) {
        uint64_t n = 4000000, a = 1, b = 3;
        double start = now();
        for (uint64_t i = 0; i < n; i += 8) {
            ONE; ONE; ONE; ONE; ONE; ONE; ONE; ONE;
        }
        double rate = n / (now() - start);
        if (rate > best) best = rate;
    }
    return best;
}

/* STREAM triad a = b + s c over n floats; seconds of the fastest of `rounds`, the first one not counted. */
double triad_s(size_t n, int rounds, int threads) {
    float *a = aligned_alloc(64, n * 4), *b = aligned_alloc(64, n * 4), *c = aligned_alloc(64, n * 4);
    if (!a || !b || !c) { free(a); free(b); free(c); return -1.0; }
    for (size_t i = 0; i < n; i++) { a[i] = 0.0f; b[i] = 1.0f; c[i] = 2.0f; }
    double best = 1e30;
    for (int round = 0; round <= rounds; round++) {
        double start = now();
        #pragma omp parallel for num_threads(threads)
        for (size_t i = 0; i < n; i++) a[i] = b[i] + 3.0f * c[i];
        double took = now() - start;
        if (round > 0 && took < best) best = took;
        __asm__ volatile("" : : "r"(a) : "memory");
    }
    free(a); free(b); free(c);
    return best;
}
"""

_loaded: list[ctypes.CDLL | None] = []


def library() -> ctypes.CDLL | None:
    """The probes, compiled once a process; None without a C compiler."""
    if not _loaded:
        _loaded.append(_compiled())
    return _loaded[0]


def _compiled() -> ctypes.CDLL | None:
    import ctypes

    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "probes.c"), os.path.join(folder, "probes.so")
        with open(source, "w", encoding="utf-8") as file:
            file.write(_SOURCE)
        for extra in (["-fopenmp"], []):
            command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", *extra, source, "-o", target]
            try:
                done = subprocess.run(command, capture_output=True, check=False, timeout=60)  # noqa: S603 - our own source
            except (OSError, subprocess.TimeoutExpired):
                return None
            if done.returncode == 0:
                found = ctypes.CDLL(target)
                found.clock_hz.restype = ctypes.c_double
                found.triad_s.restype = ctypes.c_double
                found.triad_s.argtypes = (ctypes.c_size_t, ctypes.c_int, ctypes.c_int)
                return found
    return None


def clock_probe() -> float | None:
    """Measured clock in Hz; None without a compiler."""
    found = library()
    return float(found.clock_hz()) if found is not None else None


def triad_bytes_per_s(array_bytes: float, rounds: int = 10, threads: int = 1) -> float | None:
    """STREAM triad, three arrays counted; None without a compiler or the memory for it."""
    found = library()
    if found is None:
        return None
    elements = int(array_bytes / 4)
    took = float(found.triad_s(elements, rounds, threads))
    return 3.0 * 4.0 * elements / took if took > 0.0 else None
