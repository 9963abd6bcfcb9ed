"""The benchmark suites run, and say what a kernel does and what it was predicted to take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_benchmark_is_saved_with_its_counts_and_its_ratio_to_the_control(tmp_path):
    command = [
        sys.executable, "-m", "pytest", "bench/", "--benchmark-only", "-q", "-k", "gemm-batched and fp32", "--benchmark-storage",
        f"file://{tmp_path}", "--benchmark-save", "a", "-p", "no:cacheprovider",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout[-2000:]
    saved = json.loads(next(tmp_path.rglob("*.json")).read_text())
    (entry,) = saved["benchmarks"]
    extra = entry["extra_info"]
    assert extra["flop"] == 2.0 * 16 * 128 * 128 * 64
    assert extra["byte"] > 0
    assert extra["device"] in ("cpu", "cuda")
    assert "predicted_s" in extra
    assert extra["ratio_to_control"] > 0.0
    # What differs from minute to minute is not kept, so that runs of two days compare.
    assert "load" not in saved["machine_info"]["capacity"]
    assert not any("hz" in name for name in saved["machine_info"]["cpu"])
