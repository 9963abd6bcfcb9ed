"""The engines of a sweep, each real: its rows are those of the local one, whatever dies in the middle."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pandas as pd
import pytest

from capacity.sweeps.cases import Grid
from capacity.sweeps.run import sweep

GRID = Grid(
    {
        "params": (1e9, 7e9, 70e9),
        "tp": (1.0, 2.0, 3.0, 8.0),
        "pp": (1.0, 2.0, 4.0),
        "micro_batch": (1.0, 2.0),
        "recompute": ("none", "selective", "full"),
        "seq_len": (2048.0, 8192.0),
    }
)
SHARED = {"mode": "train", "devices": 64, "zero": 1, "batch": 512}
BLOCK = 40


def rows(path):
    """The rows of a data set, in a fixed order."""
    frame = pd.read_parquet(path)
    return frame.sort_values(list(GRID.axes)).reset_index(drop=True)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("local") / "rows"
    found = sweep(GRID, SHARED, output=str(path), block_rows=BLOCK)
    assert found.rows == GRID.rows
    assert 0 < found.errors < found.rows
    frame = rows(path)
    assert len(frame) == GRID.rows
    assert not frame.duplicated(list(GRID.axes)).any()
    return frame


def same(frame, expected):
    """Row for row; columns of blocks that finished in another order may stand elsewhere."""
    pd.testing.assert_frame_equal(frame[sorted(frame)], expected[sorted(expected)], rtol=1e-12)


def test_processes_give_the_same_rows(expected, tmp_path):
    sweep(GRID, SHARED, output=str(tmp_path / "rows"), block_rows=BLOCK, jobs=2)
    same(rows(tmp_path / "rows"), expected)


def started(*command, says):
    """A process, once its stderr says it is up."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    for line in process.stderr:
        if says in line:
            return process, line
    raise AssertionError(f"{command} did not start")


def test_dask_loses_no_row_with_a_worker(expected, tmp_path):
    scheduler, line = started(
        "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show",
        says="Scheduler at:",
    )  # fmt: skip
    address = line.split()[-1]
    worker = ("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
    workers = [started(*worker, "--name", f"w{n}", says="Registered to:")[0] for n in range(2)]
    killed = []

    def progress(done, _, __):
        if done >= 2 * BLOCK and not killed:
            killed.append(done)
            os.kill(workers[0].pid, signal.SIGKILL)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = sweep(
                GRID, SHARED, output=str(tmp_path / "rows"), block_rows=BLOCK, engine="dask", address=address,
                progress=progress,
            )  # fmt: skip
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
            process.stderr.close()
    assert killed
    assert found.rows == GRID.rows
    same(rows(tmp_path / "rows"), expected)


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java, and there is none")
@pytest.mark.filterwarnings("ignore")
def test_spark_gives_the_same_rows(expected, tmp_path, monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    # A virtual machine that starts soon rather than runs fast.
    quick = '--driver-java-options "-XX:+UseSerialGC -XX:TieredStopAtLevel=1" --driver-memory 512m pyspark-shell'
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", quick)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    found = sweep(GRID, SHARED, output=str(tmp_path / "rows"), block_rows=4 * BLOCK, engine="spark", jobs=2)
    assert found.rows == GRID.rows
    same(rows(tmp_path / "rows"), expected)


KILLED = """
import sys
from capacity.sweeps.cases import Grid
from capacity.sweeps.run import sweep
sweep(Grid({axes!r}), {shared!r}, output={path!r}, block_rows={block}, pareto="time,cost",
      progress=lambda done, rows, seconds: print(done, flush=True))
"""


def test_a_killed_sweep_goes_on_where_it_stopped(expected, tmp_path):
    path = str(tmp_path / "rows")
    script = KILLED.format(axes=GRID.axes, shared=SHARED, path=path, block=BLOCK)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= 3 * BLOCK:
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    kept = {name: os.stat(os.path.join(path, name)).st_mtime_ns for name in os.listdir(path)}
    assert len([name for name in kept if name.startswith("part-")]) >= 3
    time.sleep(0.01)
    found = sweep(GRID, SHARED, output=path, block_rows=BLOCK, pareto="time,cost", resume=True)
    assert found.resumed >= 3 * BLOCK
    assert found.rows == GRID.rows
    same(rows(path), expected)
    whole = sweep(GRID, SHARED, block_rows=BLOCK, pareto="time,cost")
    assert len(found.shown) == len(whole.shown)
    assert found.errors == whole.errors
    assert found.unfit == whole.unfit
