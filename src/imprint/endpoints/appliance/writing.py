"""Writing an OVA: disks become compressed images, one behind the other in a tar archive.

::

    descriptor | manifest | disk 1 | disk 2 … | end

The first two name sizes and hashes of the others, and are of known length themselves. A file
gets them when the disks are written; for a pipe every disk is copied twice, first to nowhere
but a hash. Both ways give the same bytes.

Source: DMTF DSP0243, Open Virtualization Format 1.1, sections 5.1 (manifests) and 5.3 (OVA).
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.codecs import tar
from imprint.core.contracts import Encoding
from imprint.core.errors import ReadError, UsageError
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.units import align_up
from imprint.endpoints.appliance import hardware
from imprint.endpoints.appliance.common import (
    level_of,
    onward,
    open_all,
    options_of,
    plan_of,
    to_file,
)
from imprint.endpoints.appliance.hardware import DiskFile
from imprint.endpoints.appliance.kinds import OVA
from imprint.endpoints.copying import (
    CopyRequest,
    Outcome,
    Plan,
    copy_to,
    tell_left_behind,
    tell_padding,
)
from imprint.endpoints.location import Where
from imprint.filters.ascending import AscendingStorage
from imprint.transfer.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.contracts import Source, Storage, Target, Traits
    from imprint.core.formats import OptionValue
    from imprint.endpoints.appliance.hardware import Machine

_NAME_MAX: Final = 80
"""Characters of a file's name that the machine's name gives; with a suffix, tar takes 100."""

_ADAPTERS: Final = {"ide": "ide", "buslogic": "buslogic"}


@dataclass(frozen=True)
class Written:
    """A disk in the archive.

    Attributes:
        file: as the descriptor tells of it.
        digest: of the file, hexadecimal.
        report: of the copy.
    """

    file: DiskFile
    digest: str
    report: Report


@dataclass(frozen=True)
class Job:
    """An appliance that is to be written.

    Attributes:
        request: what the user asked for.
        addresses: of the disks.
        sources: the disks, opened.
        machine: that they belong to.
        base: what the names of all files begin with.
        identity: that the disks' own identities follow from.
        digest: name of the manifest's hash.
        level: of the compression.
        time_s: of the files, in seconds since 1970.
    """

    request: CopyRequest
    addresses: tuple[str, ...]
    sources: tuple[Source, ...]
    machine: Machine
    base: str
    identity: uuid.UUID
    digest: str
    level: int
    time_s: int

    def disk_name(self, index: int) -> str:
        """Of the file of a disk, counted from 0."""
        return f"{self.base}-disk{index + 1}.vmdk"


def plan(request: CopyRequest, addresses: tuple[str, ...]) -> Plan:
    """Open the sources, check the target's name and options, and touch nothing.

    Raises:
        ImagingError: for what would make the copy fail before it begins.
    """
    with ExitStack() as opened:
        return plan_of(prepare(request, addresses, opened).sources, OVA)


def run(request: CopyRequest, addresses: tuple[str, ...]) -> Outcome:
    """Write an appliance with the disks at ``addresses``.

    Raises:
        ImagingError: of the kind that says what is wrong. The target then has its old
            content or is absent.
    """
    with ExitStack() as opened:
        job = prepare(request, addresses, opened)
        for address, source in zip(addresses, job.sources, strict=True):
            tell_left_behind(replace(request, source=address), source)
        if request.target.location.where is Where.STREAM:
            return _to_stream(job)
        return to_file(request, lambda storage: _write(job, storage, ()), OVA)


def prepare(request: CopyRequest, addresses: tuple[str, ...], opened: ExitStack) -> Job:
    """Check all that can be, and open the sources; ``opened`` closes them.

    Raises:
        UsageError: if the options make no sense.
        RefusedError: if the target exists, or is a source.
        ImagingError: if a source cannot be opened.
    """
    values = options_of(request, OVA)
    if addresses.count("-") > 1:
        raise UsageError("standard input can be one disk only", name="-")
    given = values.get("name")
    target = request.target.location
    stem = "machine" if target.where is Where.STREAM else target.path.name
    name = _readable(re.sub(r"(?i)\.ova\Z", "", stem)) if given is None else str(given)
    machine = hardware.machine(values, name, len(addresses))
    identity = _uuid(values.get("uuid"))
    now_s = int(time.time())
    return Job(
        request=request,
        addresses=addresses,
        sources=open_all(request, addresses, opened),
        machine=machine,
        base=re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:_NAME_MAX].strip("._-") or "machine",
        identity=identity,
        digest=str(values["digest"]),
        level=level_of(values),
        time_s=now_s if request.target.time_s is None else request.target.time_s,
    )


def _to_stream(job: Job) -> Outcome:
    from imprint.storage.stream import StreamStorage  # only for streams

    storage = StreamStorage.output()
    surveyed = _write_disks(job, None, 0, ())
    report = _write(job, storage, surveyed)
    storage.commit()
    return Outcome(report, storage.stored_size, OVA.name)


def _write(job: Job, storage: Storage, surveyed: Sequence[Written]) -> Report:
    """Write the archive; what leads it comes last, unless a survey has told what it says."""
    nothing = [DiskFile(job.disk_name(index), 0, 0, 0) for index in range(len(job.sources))]
    if surveyed:
        front = _front(job, surveyed)
        storage.write(memoryview(front), 0)
        start = len(front)
    else:
        start = len(
            _front(job, [Written(file, _hash(job).hexdigest(), Report(0)) for file in nothing])
        )
    written = _write_disks(job, storage, start, surveyed)
    if not surveyed:
        front = _front(job, written)
        assert len(front) == start
        storage.write(memoryview(front), 0)
    position = start + sum(tar.BLOCK + align_up(one.file.size, tar.BLOCK) for one in written)
    storage.resize(tar.end_of(position))
    return Report(
        size=sum(one.report.size for one in written),
        bytes_read=sum(one.report.bytes_read for one in written),
        bytes_written=sum(one.report.bytes_written for one in written),
        duration_s=sum(one.report.duration_s for one in (*surveyed, *written)),
    )


def _front(job: Job, disks: Sequence[Written]) -> bytes:
    """Descriptor and manifest, as they stand in the archive."""
    text = hardware.describe(job.machine, [disk.file for disk in disks])
    digests = [(f"{job.base}.ovf", _hash(job, text).hexdigest())]
    digests += [(disk.file.name, disk.digest) for disk in disks]
    kind = job.digest.upper()
    manifest = "".join(f"{kind}({name})= {digest}\n" for name, digest in digests).encode()
    return b"".join(
        tar.header(name, len(data), job.time_s) + data.ljust(align_up(len(data), tar.BLOCK), b"\0")
        for name, data in ((f"{job.base}.ovf", text), (f"{job.base}.mf", manifest))
    )


def _write_disks(
    job: Job, storage: Storage | None, start: int, surveyed: Sequence[Written]
) -> list[Written]:
    total = sum(source.size for source in job.sources)
    done = moved = 0
    written: list[Written] = []
    for index, source in enumerate(job.sources):
        on_event = onward(job.request.on_event, done, moved, total)
        request = replace(job.request, source=job.addresses[index], on_event=on_event)
        expected = surveyed[index] if surveyed else None
        one = _write_disk(replace(job, request=request), index, storage, start, expected)
        written.append(one)
        start += tar.BLOCK + align_up(one.file.size, tar.BLOCK)
        done += source.size
        moved += one.report.bytes_read
    return written


def _write_disk(
    job: Job,
    index: int,
    storage: Storage | None,
    start: int,
    expected: Written | None,
) -> Written:
    """Write one disk, its header at ``start``."""
    source, name = job.sources[index], job.disk_name(index)
    if storage is not None and expected is not None:
        storage.write(memoryview(tar.header(name, expected.file.size, job.time_s)), start)
    member = _MemberStorage(storage, start + tar.BLOCK, name, _hash(job))
    target = _Counted(_vmdk(job, index, source.size, member))
    if expected is None:  # once, if it is written twice
        tell_padding(job.request, source, target)
    report = copy_to(job.request, source, target, phase="survey" if storage is None else "copy")
    written = Written(
        DiskFile(name, member.size, target.size, min(target.populated, target.size)),
        member.digest(),
        report,
    )
    if expected is not None and (written.file, written.digest) != (expected.file, expected.digest):
        raise ReadError("was not the same when it was read again", name=source.name)
    if storage is not None and expected is None:
        storage.write(memoryview(tar.header(name, member.size, job.time_s)), start)
    return written


def _vmdk(job: Job, index: int, size: int, storage: Storage) -> Target:
    """A new streamOptimized image in ``storage``."""
    format_ = formats.get("vmdk")
    given = {
        "subformat": "streamOptimized",
        "adapter_type": _ADAPTERS.get(job.machine.controller, "lsilogic"),
        "hwversion": str(job.machine.hwversion),
        "level": str(job.level),
        "uuid": str(uuid.uuid5(job.identity, f"disk{index + 1}")),
    }
    options = parse_options(format_.name, format_.options, given)
    spec = CreateSpec(size, job.request.access.gate(), options, time_s=job.time_s)
    return format_.create(storage, spec)


def _hash(job: Job, data: bytes = b"") -> hashlib._Hash:
    """Of the manifest's kind. It tells of accidents: whoever means ill writes another manifest."""
    return hashlib.new(job.digest, data, usedforsecurity=False)


def _readable(name: str) -> str:
    """A file's name as text that XML can hold."""
    readable = "".join(char if char.isprintable() else "_" for char in name).strip()
    return readable or "machine"


def _uuid(given: OptionValue | None) -> uuid.UUID:
    try:
        return uuid.uuid4() if given is None else uuid.UUID(str(given))
    except ValueError:
        raise UsageError(f"expected a UUID, found {given!r}") from None


class _MemberStorage(AscendingStorage):
    """A file inside the archive, hashed while it is written; ``None``: only hashed."""

    def __init__(
        self, archive: Storage | None, offset: int, name: str, made: hashlib._Hash
    ) -> None:
        super().__init__(name)
        self._archive = archive
        self._offset = offset
        self._hash = made

    def digest(self) -> str:
        """Of what was written so far, hexadecimal."""
        return self._hash.hexdigest()

    def _send(self, data: memoryview) -> None:
        self._hash.update(data)
        if self._archive is not None:
            self._archive.write(data, self._offset + self._position)
        self._position += len(data)


class _Counted:
    """An image that compresses, and how much of its disk is not zeros."""

    def __init__(self, target: Target) -> None:
        assert isinstance(target, Encoding)
        self._target = target
        self._encoder: Encoding = target
        self.populated = 0

    @property
    def name(self) -> str:
        """Of the image."""
        return self._target.name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._target.size

    @property
    def traits(self) -> Traits:
        """Of the image."""
        return self._target.traits

    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """Compress."""
        return self._encoder.encode(data, offset)

    def write_encoded(self, units: list[bytes], offset: int) -> None:
        """Store, and count the grains that are there."""
        self.populated += self.traits.grain * sum(map(bool, units))
        self._encoder.write_encoded(units, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Store."""
        self._target.write(data, offset)
        self.populated += len(data)

    def zero(self, offset: int, length: int) -> None:
        """Leave out."""
        self._target.zero(offset, length)

    def commit(self) -> None:
        """Finish the image; the archive that it is in is not finished yet."""
        self._target.commit()

    def abort(self) -> None:
        """Whoever writes the archive removes it."""
        self._target.abort()
