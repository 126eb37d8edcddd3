"""A disk that is captured into a repository again and again, and what is read of it each time."""

from __future__ import annotations

import re
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.events import Event, Finding
from imprint.core.extent import Extent, Kind
from imprint.core.runs import Runs
from imprint.endpoints.capturing import Adding, Addition
from imprint.endpoints.copying import CopyRequest
from imprint.endpoints.open import Access, open_source
from imprint.endpoints.repository import make_repository
from imprint.endpoints.target import TargetRequest
from imprint.filters.over import OverSource
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.core.contracts import Source

STEP_S: Final = 60
"""Between two captures, as far as the disk and the snapshots know: no test waits for a clock."""


class Watched(OverSource):
    """A disk that notes what is read of it.

    Attributes:
        reads: offset and length of each read.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.reads: list[tuple[int, int]] = []

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """As of the disk."""
        self.reads.append((offset, len(buffer)))
        self._source.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """As of the disk, but nothing can be read past this."""
        for extent in self._source.extents(offset, length):
            is_data = extent.kind is Kind.DATA
            yield Extent(*extent[:2], Kind.ENCODED) if is_data else extent

    def close(self) -> None:
        """The disk is closed by others."""


@dataclass(frozen=True)
class Again:
    """What came of a capture.

    Attributes:
        content: what the snapshot reads as.
        read: of the disk, to be stored.
        said: findings.
    """

    content: bytes
    read: Runs
    said: list[str]


@dataclass
class Disk:
    """A raw disk, and its snapshots in a repository that is made beside it.

    Attributes:
        path: of the disk.
        kind: of the file system, if it knows when it was last written: that is set then.
    """

    path: Path
    kind: str = ""
    _now_s: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        place = f"{self.path}.repository"
        make_repository(place, Access(), is_encrypted=False, level=1, parity=0).close()

    def capture(self, *, trust_times: bool = True) -> Again:
        """Capture it, a minute later than before by all clocks."""
        self._now_s += STEP_S
        if self.kind == "ext":
            # With a journal to replay, debugfs would not write; then the time does not matter.
            faked = f"E2FSPROGS_FAKE_TIME={self._now_s}"
            run("env", faked, "debugfs", "-w", "-R", "set_super_value mnt_count 1", self.path)
        said: list[str] = []

        def hear(event: Event) -> None:
            if isinstance(event, Finding):
                said.append(f"{event.where}: {event.what}")

        target = TargetRequest(f"repo:{self.path}.repository::disk", time_s=self._now_s)
        access = Access(format="raw", on_event=hear)
        request = CopyRequest(str(self.path), target, access, on_event=hear)
        with (
            closing(open_source(request.source, access)) as source,
            closing(Addition(request, Adding(trust_times=trust_times), [])) as addition,
        ):
            watched = Watched(source)
            addition.add(source, watched)
        with closing(open_source(target.address, Access())) as snapshot:
            content = bytearray(snapshot.size)
            snapshot.readinto(memoryview(content), 0)
        return Again(bytes(content), Runs.of(watched.reads), said)


def places(folder: Path, *names: str) -> Runs:
    """Where files of a mounted file system lie, by the kernel."""
    runs = []
    for name in names:
        told = run("filefrag", "-s", "-v", "-b1", folder / name).stdout
        for line in re.findall(r"^ +\d+:.*", told, re.MULTILINE):
            _, _, _, start, _, length, *_ = re.findall(r"\d+", line)
            runs.append((int(start), int(length)))
    return Runs.of(runs)
