"""The proof that nothing in use was left out: file systems are walked, and what they reach counts.

It takes other ways through the structures than the maps do: from the superblock by trees, not
by bitmaps.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.events import Finding, Severity, ignore
from imprint.core.runs import Runs
from imprint.endpoints.hashing import open_written
from imprint.endpoints.location import Where
from imprint.endpoints.survey import describe
from imprint.endpoints.used import VolumeTree
from imprint.filesystems.allocation import Walking
from imprint.filesystems.table import allocator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.contracts import Passphrase, Source
    from imprint.endpoints.copying import CopyRequest
    from imprint.endpoints.open import Access
    from imprint.transfer.report import Report

_SHARE: Final = 0.05
_LEAST_S: Final = 0.1
"""What a proof may take that nobody has asked for: of the copy's time, and in any case."""

_CLOCK_STEP: Final = 64
"""Runs between two looks at the clock."""


def prove_written(request: CopyRequest, used: Runs, report: Report, format_name: str) -> bool:
    """Walk the file systems in what a copy has stored; whether that was done.

    Args:
        request: of the copy.
        used: what was copied, in bytes of the disk.
        report: of the copy.
        format_name: of the target.

    Raises:
        CorruptImageError: if they reach what was left out.
        UnsupportedFeatureError: if they cannot be walked, and a proof was demanded.
    """
    target = request.target
    if target.location.where is Where.STREAM:
        return False
    access = replace(request.access, format=format_name, snapshot=None, used=None)
    return prove_disk(
        request, lambda: open_written(target.address, report.size, access), used, report
    )


def prove_disk(
    request: CopyRequest, reopen: Callable[[], Source], used: Runs, report: Report
) -> bool:
    """Walk the file systems in a stored disk; whether that was done.

    Args:
        request: of the copy.
        reopen: opens what was stored, which is closed again.
        used: what was copied, in bytes of the disk.
        report: of the copy.

    Raises:
        CorruptImageError: if they reach what was left out.
        UnsupportedFeatureError: if they cannot be walked, and a proof was demanded.
    """
    if request.prove is False:
        return False
    limit_s = max(_SHARE * report.duration_s, _LEAST_S)
    deadline_s = math.inf if request.prove else time.monotonic() + limit_s
    try:
        with closing(reopen()) as disk:
            check_proof(disk, used, request.access, deadline_s=deadline_s)
    except TimeoutError:
        what = "it takes longer to prove that nothing in use was left out: --prove does it"
    except UnsupportedFeatureError as error:
        if request.prove:
            raise
        what = f"it cannot be proved that nothing in use was left out: {error.args[0]}"
    else:
        return True
    request.on_event(Finding(Severity.INFO, request.target.address, what))
    return False


def check_proof(
    source: Source, used: Runs, access: Access, *, deadline_s: float = math.inf
) -> None:
    """Walk the file systems on a disk, and refuse a map that lacks something they reach.

    Raises:
        CorruptImageError: if it does.
        TimeoutError: if it is not done at ``deadline_s`` of the monotonic clock.
    """
    passphrase = access.gate().passphrase
    for where, lacking in missing(source, used, passphrase=passphrase, deadline_s=deadline_s):
        if len(lacking):
            raise CorruptImageError(
                f"{where}: expected that nothing in use is left out, found {lacking.total} bytes "
                f"that its trees reach, the first at 0x{lacking.starts[0]:x}",
                name=source.name,
                offset=lacking.starts[0],
                advice="check the file system; without --used all of it is kept",
            )


def missing(
    source: Source, used: Runs, *, passphrase: Passphrase, deadline_s: float = math.inf
) -> Iterator[tuple[str, Runs]]:
    """Walk the trees of file systems on a disk, and look for what ``used`` lacks of them.

    Those of which nothing was left out are not walked: they may be damaged.

    Args:
        source: the disk: as stored, if it shall be proved that it can be walked.
        used: what counts, in bytes of the disk.
        passphrase: asks for the secrets of encrypted volumes.
        deadline_s: on the monotonic clock, when to give up.

    Yields:
        For each volume that can be walked, where it is, and the bytes of the disk that can
        be reached and do not count: none, if the map was right.

    Raises:
        CorruptImageError: if a tree cannot be followed.
        ReadError: if a part of it cannot be read.
        TimeoutError: at the deadline.
    """
    tree = VolumeTree(source, describe(source), passphrase, ignore)
    for volume in tree.volumes():
        file_system = None if volume.kind is None else allocator(volume.kind)
        whole = volume.to_disk(Runs.whole(volume.source.size))
        if isinstance(file_system, Walking) and len(whole - used):
            reached = Runs.of(_in_time(file_system.reached(volume.source), deadline_s))
            yield volume.where, volume.to_disk(reached) - used


def _in_time(items: Iterator[tuple[int, int]], deadline_s: float) -> Iterator[tuple[int, int]]:
    for count, item in enumerate(items):
        if count % _CLOCK_STEP == 0 and time.monotonic() > deadline_s:
            raise TimeoutError
        yield item
