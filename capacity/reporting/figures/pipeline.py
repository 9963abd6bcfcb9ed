"""The pipeline of a training step: which stage works on what when, and who waits for whom."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import BAND, INK, PAPER, QUIET, SERIES, Sheet, quiet
from capacity.reporting.figures.shown import calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capacity.reporting.figures.shown import Shown

Block = tuple[str, int, int]  # pass, chunk, micro-batch
MOST_STAGES = 16
# Parts of a step that stages do for every micro-batch.
_OUTSIDE = ("pipeline bubble", "gradient reduction", "gradient accumulation", "optimizer", "optimizer on the host", "stragglers",
            "sharded weights traffic", "host traffic")  # fmt: skip


def pipeline(shown: Shown) -> Drawing | None:
    """Start and end of the step's schedule; nothing for a run without a pipeline, or whose schedule is not simulated here."""
    if shown.request is None or not shown.training:
        return None
    from capacity.estimators.case import read_case
    from capacity.estimators.training_run import price_run, read_workload
    from capacity.formula import ledger

    case = read_case(shown.request)
    workload, devices = read_workload(case)
    with ledger():
        run = price_run(case, case.model, workload, case.cluster, devices)
    plan, rounds = run.plan, int(run.rounds)
    stages, chunks = int(plan.pp), int(plan.interleave)
    if not 1 < stages <= MOST_STAGES or plan.schedule not in ("1f1b", "gpipe") or rounds < 1:
        return None
    if chunks > 1 and rounds % stages:
        chunks = 1
    each = sum(float(value) for name, value in run.time.items() if name not in _OUTSIDE) / rounds
    share = forward_share(run.time)
    order = [stage_order(stage, stages, rounds, chunks, plan.schedule) for stage in range(stages)]
    rows = simulate(order, stages, chunks, each * share / chunks, each * (1.0 - share) / chunks)
    end = max(row["end_s"] for row in rows)
    busy = sum(row["end_s"] - row["start_s"] for row in rows)
    idle = 1.0 - busy / (end * stages)
    window = min(end / 2.0, (stages + 4.0) * each)
    kept = tuple(row for row in rows if row["start_s"] < window or row["end_s"] > end - window)
    named = {"1f1b": "1F1B", "gpipe": "GPipe"}[plan.schedule] + (
        f" with {chunks} chunks a device" if chunks > 1 else ""
    )
    return Drawing(
        name="pipeline",
        title="The pipeline of a step",
        caption=f"{named}, {rounds} micro-batches through {stages} stages, its begin and its end; numbers are micro-batches, and where a stage is blank it waits. "
        f"Stages wait {idle:.1%} of this time. Blocks take the mean of a micro-batch; hand-over is part of them.",
        alt=f"{stages} pipeline stages working on {rounds} micro-batches, {idle:.1%} idle.",
        rows=kept,
        draw=draw,
    )


def forward_share(time: dict[str, float]) -> float:
    """The share of the forward pass in what a stage does for a micro-batch, from the step's own ledger."""
    sums = {"forward": 0.0, "backward": 0.0}
    for name, value in time.items():
        if name in _OUTSIDE:
            continue
        for call, times, path in calls(value):
            # The outermost sum of a forward and a backward part tells; what is inside is part of it.
            terms = call.inputs.get("terms")
            if isinstance(terms, dict) and {"forward", "backward"} <= terms.keys() and not set(path) & set(sums):
                for way in sums:
                    sums[way] += float(terms[way]) * times
        if name == "recomputation":
            sums["backward"] += float(value)
    return sums["forward"] / (sums["forward"] + sums["backward"]) if sums["forward"] else 1.0 / 3.0


def stage_order(stage: int, stages: int, rounds: int, chunks: int, schedule: str) -> list[Block]:
    """What a stage does, in order: one forward, one backward once it has warmed up; with GPipe all forwards first."""
    turns = rounds * chunks

    def block(way: str, turn: int) -> Block:
        group, inside = divmod(turn, stages * chunks)
        chunk, place = divmod(inside, stages)
        if chunks == 1:
            return way, 0, turn
        return way, chunk if way == "F" else chunks - 1 - chunk, group * stages + place

    if schedule == "gpipe":
        warm = turns
    elif chunks == 1:
        warm = min(stages - stage - 1, turns)
    else:
        warm = min((stages - stage - 1) * 2 + (chunks - 1) * stages, turns)
    blocks = [block("F", turn) for turn in range(warm)]
    for turn in range(turns - warm):
        blocks += [block("F", warm + turn), block("B", turn)]
    return blocks + [block("B", turn) for turn in range(turns - warm, turns)]


def simulate(
    order: Sequence[Sequence[Block]], stages: int, chunks: int, forward_s: float, backward_s: float
) -> list[dict[str, Any]]:
    """When each block runs: as soon as its stage is free and what it needs is there."""
    done: dict[tuple[int, Block], float] = {}
    free = [0.0] * stages
    place = [0] * stages
    rows: list[dict[str, Any]] = []
    moved = True
    while moved:
        moved = False
        for stage in range(stages):
            while place[stage] < len(order[stage]):
                way, chunk, batch = order[stage][place[stage]]
                needed = _needs(stage, way, chunk, batch, stages, chunks)
                if needed is not None and needed not in done:
                    break
                start = max(free[stage], done[needed] if needed is not None else 0.0)
                end = start + (forward_s if way == "F" else backward_s)
                done[stage, (way, chunk, batch)] = free[stage] = end
                rows.append(
                    {
                        "stage": stage + 1,
                        "way": "forward" if way == "F" else "backward",
                        "micro_batch": batch + 1,
                        "chunk": chunk + 1,
                        "start_s": start,
                        "end_s": end,
                    }
                )
                place[stage] += 1
                moved = True
    if any(place[stage] < len(order[stage]) for stage in range(stages)):
        raise RuntimeError("the schedule waits for itself")
    return rows


def _needs(stage: int, way: str, chunk: int, batch: int, stages: int, chunks: int) -> tuple[int, Block] | None:
    """The block that must be done first."""
    if way == "F":
        if stage:
            return stage - 1, ("F", chunk, batch)
        return (stages - 1, ("F", chunk - 1, batch)) if chunk else None
    if stage < stages - 1:
        return stage + 1, ("B", chunk, batch)
    return (0, ("B", chunk + 1, batch)) if chunk < chunks - 1 else (stage, ("F", chunk, batch))


def draw(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """A lane for each stage; the middle of a long step is left out."""
    stages = max(row["stage"] for row in rows)
    end = max(row["end_s"] for row in rows)
    starts = sorted({row["start_s"] for row in rows})
    gaps = [(b - a, a, b) for a, b in pairwise(starts)]
    longest = max(row["end_s"] - row["start_s"] for row in rows)
    cut = max(gaps, default=(0.0, 0.0, 0.0))
    parts = [(0.0, cut[1] + longest), (cut[2], end)] if cut[0] > 2.0 * longest else [(0.0, end)]
    sheet = Sheet(0.95 + 0.26 * stages)
    chunked = max(row["chunk"] for row in rows) > 1
    for number, (low, high) in enumerate(parts):
        axes = sheet.axes(1, len(parts), number + 1)
        wide = (high - low) / (28.0 if len(parts) == 1 else 15.0)
        for stage in range(1, stages + 1):
            axes.barh(stage, high - low, left=low, height=0.8, color=BAND, linewidth=0)
        for row in rows:
            if row["start_s"] >= high or row["end_s"] <= low:
                continue
            forward = row["way"] == "forward"
            bar = axes.barh(
                row["stage"], row["end_s"] - row["start_s"], left=row["start_s"], height=0.8, color=SERIES[0] if forward else SERIES[2], edgecolor=PAPER, linewidth=0.5,
                alpha=1.0 if row["chunk"] == 1 else 0.72,
            )  # fmt: skip
            tip = f"stage {row['stage']}: {row['way']} of micro-batch {row['micro_batch']}" + (
                f", chunk {row['chunk']}" if chunked else ""
            )
            sheet.tip(bar[0], f"{tip}, {said.value(row['end_s'] - row['start_s'], 's')}")
            if row["end_s"] - row["start_s"] > wide:
                axes.text(
                    (row["start_s"] + row["end_s"]) / 2.0,
                    row["stage"],
                    str(row["micro_batch"]),
                    ha="center",
                    va="center",
                    color=PAPER,
                    fontsize=6.5,
                    clip_on=True,
                )
        axes.set(xlim=(low, high), ylim=(stages + 0.55, 0.45))
        axes.set_yticks(
            range(1, stages + 1), [f"stage {stage}" for stage in range(1, stages + 1)] if number == 0 else []
        )
        ticks = [low, high] if len(parts) > 1 else [low, (low + high) / 2.0, high]
        axes.set_xticks(ticks, [said.value(tick, "s") if tick else "0" for tick in ticks])
        named = axes.get_xticklabels()
        named[0].set_horizontalalignment("left")
        named[-1].set_horizontalalignment("right")
        quiet(axes, keep="")
        for label in axes.get_yticklabels():
            label.set_color(INK)
    first = sheet.paper.axes[0]
    for colour, text in ((SERIES[0], "forward"), (SERIES[2], "backward"), (BAND, "waiting")):
        first.barh(0, 0, color=colour, label=text)
    sheet.paper.legend(loc="outside upper left", ncols=3, handlelength=1.0, labelcolor=QUIET)
    return sheet
