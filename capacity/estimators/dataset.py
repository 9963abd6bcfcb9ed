"""What a run is fed with: kinds of data and how much of each, as collected, prepared and fed."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.estimators import feeding
from capacity.estimators.assumptions import number, one_of
from capacity.formula import sourced, total
from capacity.formulas import storage, traffic
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.spec.platform import DataKind, Host
    from capacity.spec.workload import Workload

PREPARED, RAW = FEEDS = ("prepared", "raw")
# Work whose pace is counted in decoded bytes, not in those of files.
_ON_DECODED = ("decode", "decode-resize", "log-mel")
# Work on all that was collected, before filtering.
_ON_COLLECTED = ("filter", "minhash")
# Share of a text pipeline's core time that its kernels take: SlimPajama filtered and deduplicated 1.21T tokens in 2.5 days on
# 64 cores (Cerebras' documentation), 3,840 core hours, for what the kernels of a Zen 4 core do in 356.
KERNEL_SHARE = 0.093
AROUND = "around"
# Bands of MinHash as FineWeb has them; a band's hash and the document's id.
BANDS, ENTRY_BYTES = 14.0, 24.0


class Part(Record):
    """One kind of data in a set: how many samples, each read `epochs` times; bytes of a sample as it is fed."""

    kind: DataKind
    samples: float
    epochs: float
    prepared_bytes: float
    feed: str

    @property
    def collected(self) -> float:
        """Bytes before filtering."""
        return storage.collected_bytes(self.samples, self.kind.raw_bytes, self.kind.kept_share)

    @property
    def prepared(self) -> float:
        """Bytes of what training reads, once."""
        each = self.kind.raw_bytes if self.feed == RAW else self.prepared_bytes
        return traffic.dataset_bytes(self.samples, each)

    @property
    def fed_each(self) -> float:
        """Bytes read for a sample."""
        return self.kind.raw_bytes if self.feed == RAW else self.prepared_bytes

    def core_s(self, host: Host) -> dict[str, float]:
        """Core time of each stage of the preparation."""
        found = {}
        for name in self.kind.stages if self.feed == PREPARED else self.kind.stages[:-1]:
            pace = host.work(name).bytes_per_s
            found[name] = storage.preparation_core_s(self._input(name), pace)
        return found

    def _input(self, name: str) -> float:
        if name in _ON_COLLECTED:
            return self.collected
        each = self.kind.decoded_bytes if name in _ON_DECODED else self.kind.raw_bytes
        return traffic.dataset_bytes(self.samples, each)

    def load_s(self, host: Host) -> float:
        """Core time of a loader for a sample."""
        if self.feed == PREPARED:
            return storage.preparation_core_s(self.prepared_bytes, host.work("token-copy").bytes_per_s)
        parts = {
            name: storage.preparation_core_s(
                self.kind.decoded_bytes if name in _ON_DECODED else self.kind.raw_bytes, host.work(name).bytes_per_s
            )
            for name in self.kind.feeding
        }
        return total(parts)

    @property
    def shuffled(self) -> float:
        """Bytes that preparation moves between machines."""
        document = self.kind.document_bytes
        if document is None or "minhash" not in self.kind.stages:
            return self.prepared
        return storage.shuffled_bytes(
            self.collected / document,
            sourced(BANDS, "bands of MinHash", "FineWeb", "default"),
            ENTRY_BYTES,
            self.prepared,
        )


def read_dataset(case: Case, workload: Workload) -> tuple[Part, ...]:
    """The data set a request names, or the one its tokens make."""
    from capacity.catalogue import load_data_kind

    folders = tuple(case.request.get("catalogue", ()))
    take = case.assumptions.take
    feed = one_of("--feed", case.request.get("feed"), FEEDS)
    epochs = take(
        "passes over the data", number("--epochs", case.request.get("epochs"), "1", 1e-3, 1e6), 1.0, "1", "one"
    )
    named = case.request.get("dataset")
    parts = []
    for word in str(named).split(",") if named is not None else (_usual(case),):
        name, _, amount = word.strip().partition(":")
        kind = load_data_kind(name, folders)
        unit = "s" if kind.sample == "second" else "1"
        samples = _amount(amount, unit, f"--dataset {word.strip()[:60]}") if amount else None
        if samples is None:
            if kind.sample == "second":
                raise InputError(f"--dataset {name} needs how much of it, as in --dataset {name}:680000h")
            each = feeding.longest(case.model) if kind.id == "images" and feeding.sees_only(case.model) else 1.0
            samples = workload.tokens / epochs / each
        width = kind.fed_bytes
        if kind.id == "text":
            width = sourced(
                2.0 if case.model.vocab_size <= 65536.0 else 4.0,
                "bytes of a stored token",
                "by the vocabulary",
                "default",
            )
        how = feed or (PREPARED if kind.id == "text" else RAW)
        case.assumptions.note(
            f"{kind.id}, {kind.sample}s", float(samples), unit, "user" if amount else "default", kind.name
        )
        case.assumptions.note(f"{kind.id} is fed", how, "", "user" if feed else "default")
        case.assumptions.note(
            f"{kind.id} kept by filtering",
            float(kind.kept_share),
            "1",
            "catalogue",
            getattr(kind.kept_share, "source", ""),
        )
        parts.append(Part(kind, samples, epochs, width, how))
    return tuple(parts)


def _usual(case: Case) -> str:
    return "images" if feeding.sees_only(case.model) else "text"


def _amount(text: str, unit: str, name: str) -> float:
    value = number(name, text, unit, 1.0, 1e18)
    assert value is not None
    return value


def stages(parts: tuple[Part, ...], host: Host) -> dict[str, float]:
    """Core time of each stage over all parts; under AROUND what text pipelines take beside their kernels."""
    found: dict[str, Any] = {}
    for part in parts:
        for name, seconds in part.core_s(host).items():
            found[name] = found[name] + seconds if name in found else seconds
        if "minhash" in part.kind.stages:
            share = sourced(KERNEL_SHARE, "share of kernels in a pipeline", "SlimPajama: 3,840 core hours", "default")
            rest = storage.around_kernels_s(total(part.core_s(host)), share)
            found[AROUND] = found[AROUND] + rest if AROUND in found else rest
    return found
