"""Whether a package is what it says: its hashes, its descriptor, and the images of its disks.

Source: DMTF DSP0243, Open Virtualization Format 1.1, section 5.1 (manifests).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.core.errors import CorruptImageError, FormatError, ReadError, UnsupportedFeatureError
from imprint.core.events import Finding, OnEvent, Progress, Severity, ignore
from imprint.core.formats import Checkable
from imprint.core.limits import SPAN_BYTES
from imprint.endpoints.appliance import package as packages
from imprint.endpoints.hashing import Damage, Verification, verify_disk
from imprint.endpoints.location import parse
from imprint.endpoints.open import open_source, open_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from imprint.codecs.tar import Member
    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Storage
    from imprint.endpoints.appliance.package import Package, PackagedDisk
    from imprint.endpoints.open import Access

_ALGORITHMS: Final = {"MD5": 32, "SHA1": 40, "SHA256": 64, "SHA384": 96, "SHA512": 128}
_LINE: Final = re.compile(r"([A-Za-z0-9]+) ?\(([^()]+)\) ?= ?([0-9A-Fa-f]+)")
_PLAIN: Final = re.compile(r"[^/\\:]+")
_PROGRESS_BYTES: Final = 16 * SPAN_BYTES


@dataclass(frozen=True)
class MemberDigest:
    """A file's hash in the manifest, and that of its content.

    Attributes:
        name: of the file.
        algorithm: of the hash, in lower case.
        expected: hexadecimal.
        found: likewise; ``None`` if the package has no such file.
    """

    name: str
    algorithm: str
    expected: str
    found: str | None

    @property
    def ok(self) -> bool:
        """Whether it is as expected."""
        return self.found == self.expected


def digests(
    storage: Storage,
    package: Package,
    *,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> list[MemberDigest]:
    """Hash the files that the manifest names; nothing if there is none.

    Raises:
        CorruptImageError: if it is no manifest.
        Cancelled: if ``cancel`` was set.
    """
    expected = _manifest(storage, package)
    by_name = {member.name: member for member in package.members}
    total = sum(by_name[name].size for name in expected if name in by_name)
    found, done = [], 0
    for name, (algorithm, digest) in expected.items():
        member = by_name.get(name)
        actual = None
        if member is not None:
            made = hashlib.new(algorithm, usedforsecurity=False)
            for count in _feed(storage, member, made.update):
                if cancel is not None:
                    cancel.check()
                on_event(Progress("manifest", done + count, total, done + count))
            actual = made.hexdigest()
            done += member.size
        found.append(MemberDigest(name, algorithm, digest, actual))
    return found


def check(address: str, storage: Storage, access: Access) -> Iterator[Finding]:
    """Compare a package with its descriptor and its manifest; check the images of its disks.

    Args:
        address: of the package, opened again for each disk.
        storage: the package.
        access: how it may be opened.

    Raises:
        UnsupportedFeatureError: if a disk is compressed, or cut into pieces.
    """
    try:
        package = packages.read(storage)
    except CorruptImageError as error:
        yield Finding(Severity.ERROR, error.name or storage.name, str(error.args[0]))
        return
    yield from check_files(storage, package)
    for disk in package.disks:
        again = open_storage(parse(address), access.cancel)
        with closing(packages.slice_of(again, disk)) as part:
            yield from _check_disk(part, disk, access)


def check_files(storage: Storage, package: Package) -> Iterator[Finding]:
    """Compare the files of a package with its descriptor and its manifest; reads all of them."""
    yield from _check_members(package)
    yield from _check_manifest(storage, package)


def verify_disks(
    address: str,
    package: Package,
    names: tuple[str, ...],
    expected: Mapping[str, str],
    access: Access,
    *,
    workers: int = 2,
) -> list[Verification]:
    """Read all disks of a package; a disk that cannot be opened is damage as a whole.

    Args:
        address: of the package.
        package: its content.
        names: hashes to take of each disk.
        expected: of the first disk: hexadecimal digests by name of the hash.
        access: how the disks may be opened; says too who is told, and what stops it.
        workers: threads that read ahead.

    Raises:
        UsageError: for a hash that is not known.
        Cancelled: if the access's token was set.
    """
    found = []
    for disk in package.disks:
        wanted = expected if disk.number == 1 else {}
        try:
            with closing(open_source(f"{address}#d{disk.number}", access)) as source:
                found.append(
                    verify_disk(
                        source,
                        names,
                        wanted,
                        workers=workers,
                        on_event=access.on_event,
                        cancel=access.cancel,
                    )
                )
        except (FormatError, ReadError) as error:
            if isinstance(error, UnsupportedFeatureError):
                raise
            damage = Damage(0, disk.capacity or 0, str(error.args[0]))
            found.append(Verification(disk.capacity or 0, damage=(damage,), wrong=dict(wanted)))
    return found


def outside(package: Package) -> list[str]:
    """Names in the descriptor that are not those of files in the package's own folder."""
    return [file.href for file in package.files if not _PLAIN.fullmatch(file.href)]


def _manifest(storage: Storage, package: Package) -> dict[str, tuple[str, str]]:
    """Algorithm and digest by name."""
    member = package.manifest
    if member is None:
        return {}
    text = packages.read_text(storage, member).decode("utf-8-sig", "surrogateescape")
    expected: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.strip())
        algorithm = found.group(1).upper() if found is not None else ""
        if found is None or _ALGORITHMS.get(algorithm) != len(found.group(3)):
            raise CorruptImageError(
                f"{member.name}: expected SHA256(NAME)= DIGEST in line {number}, "
                f"found {line[:80]!r}",
                name=storage.name,
            )
        if found.group(2) in expected:
            raise CorruptImageError(
                f"{member.name}: expected every file once, found {found.group(2)!r} again",
                name=storage.name,
            )
        expected[found.group(2)] = (algorithm.lower(), found.group(3).lower())
    return expected


def _feed(storage: Storage, member: Member, update: Callable[[memoryview], None]) -> Iterator[int]:
    """Read a file; yields now and then how much of it was read."""
    buffer = memoryview(bytearray(min(SPAN_BYTES, member.size)))
    for start in range(0, member.size, SPAN_BYTES):
        piece = buffer[: member.size - start]
        storage.readinto(piece, member.offset + start)
        update(piece)
        if start % _PROGRESS_BYTES == 0:
            yield start + len(piece)


def _check_members(package: Package) -> Iterator[Finding]:
    where = package.descriptor.name
    sizes = {member.name: member.size for member in package.members}
    for name, count in Counter(member.name for member in package.members).items():
        if count > 1:
            yield Finding(Severity.ERROR, name, f"expected it once, found it {count} times")
    for file in package.files:
        if not _PLAIN.fullmatch(file.href):
            yield Finding(Severity.ERROR, where, f"names a file elsewhere: {file.href!r}")
        elif file.href not in sizes:
            yield Finding(Severity.ERROR, where, f"expected {file.href!r} in the package")
        elif file.size not in (None, sizes[file.href]):
            yield Finding(
                Severity.ERROR,
                file.href,
                f"expected {file.size} bytes, as {where} says, found {sizes[file.href]}",
            )
    referred = [file.href for file in package.files]
    own = {package.descriptor.name, package.manifest.name if package.manifest else ""}
    others = [name for name in sizes if name not in own and not name.lower().endswith(".cert")]
    for name in others:
        if name not in referred:
            yield Finding(Severity.WARNING, name, f"{where} does not refer to it")
    if [name for name in others if name in referred] != [
        name for name in referred if name in sizes
    ]:
        what = "the files are in another order than in it; some programs refuse that"
        yield Finding(Severity.INFO, where, what)


def _check_manifest(storage: Storage, package: Package) -> Iterator[Finding]:
    if package.manifest is None:
        yield Finding(Severity.INFO, package.descriptor.name, "no manifest: there are no hashes")
        return
    try:
        found = digests(storage, package)
    except CorruptImageError as error:
        yield Finding(Severity.ERROR, package.manifest.name, str(error.args[0]))
        return
    for item in found:
        if not item.ok:
            actual = item.found or "no such file"
            what = f"expected {item.algorithm} {item.expected}, found {actual}"
            yield Finding(Severity.ERROR, item.name, what)
    listed = {item.name for item in found}
    for name in (package.descriptor.name, *(disk.member.name for disk in package.disks)):
        if name not in listed:
            yield Finding(Severity.WARNING, package.manifest.name, f"has no hash of {name}")


def _check_disk(part: Storage, disk: PackagedDisk, access: Access) -> Iterator[Finding]:
    where = f"disk {disk.number}"
    gate = access.gate()
    try:
        format_ = formats.get(formats.detect(part))
        if isinstance(format_, Checkable):
            for finding in format_.check(part, gate, repair=False):
                yield replace(finding, where=f"{where}: {finding.where}")
        with closing(format_.open(part, gate)) as image:
            if disk.capacity not in (None, image.size):
                what = f"expected a disk of {disk.capacity} bytes, found {image.size}"
                yield Finding(Severity.ERROR, where, what)
    except FormatError as error:
        yield Finding(Severity.ERROR, where, str(error.args[0]))
