"""A verdict on an image that a stranger has handed in: may it be given to other programs?

The history of image formats in clouds is one of images that made a server read its own files,
of files that were two formats at once, and of headers that promised what the file did not
hold (CVE-2015-5163, CVE-2022-47951, CVE-2024-32498, CVE-2024-44082). Nothing outside the file
is opened here, whatever it names.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from imprint import formats
from imprint.core.errors import (
    FormatError,
    ImagingError,
    PassphraseError,
    ReferenceRefusedError,
    UnsupportedFeatureError,
)
from imprint.core.events import Severity
from imprint.core.formats import Checkable, Gapped
from imprint.core.units import format_size
from imprint.endpoints.appliance import kinds
from imprint.endpoints.gate import Unavailable, UnavailableFile
from imprint.endpoints.location import parse
from imprint.endpoints.open import Access, open_inside, open_package, open_storage
from imprint.endpoints.survey import describe
from imprint.formats import raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Reference, Source, Storage
    from imprint.endpoints.location import Location

_FINDINGS_MAX = 20
_NAMED_MAX = 3
"""Of the pieces of an image that are looked for: their names are tried, one after the other."""


@dataclass(frozen=True)
class Reason:
    """Why an image is not to be trusted.

    Attributes:
        code: ``reference``, ``several-formats``, ``unsupported``, ``damaged`` or ``size``.
        what: one sentence.
    """

    code: str
    what: str


@dataclass(frozen=True)
class Verdict:
    """What came of it.

    Attributes:
        format: of the image, or of the first that claims it.
        size: of its disk in bytes; ``None`` if it cannot be told.
        reasons: against it; none if it can be passed on.
    """

    format: str
    size: int | None
    reasons: tuple[Reason, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def inspect(
    address: str, *, format_name: str | None = None, size_max: int | None = None
) -> Verdict:
    """Look at an image with suspicion.

    Args:
        address: of the file.
        format_name: what it is said to be; ``None``: whatever it is.
        size_max: the largest disk that is acceptable, in bytes.

    Raises:
        ReadError: if the file cannot be read at all.
    """
    location = parse(address)
    package = open_package(address, Access())
    if package is not None:
        with closing(package):
            return _inspect_package(location, package, format_name, size_max)
    with closing(open_inside(location)) as storage:
        return _inspect_image(storage, format_name, size_max)


def _inspect_package(
    location: Location, storage: Storage, format_name: str | None, size_max: int | None
) -> Verdict:
    """All files against the descriptor and the manifest, and each disk by itself."""
    from imprint.endpoints.appliance import checking, package  # only for packages

    kind = kinds.OVA.name
    reasons = list(_disguise(storage, kind))
    if format_name is not None and kinds.by_name(format_name) is not kinds.OVA:
        formats.entry(format_name)  # which refuses a name that is none
        reasons.append(Reason("several-formats", f"is said to be {format_name}, and is an {kind}"))
    sizes: list[int | None] = []
    try:
        found = package.read(storage)
        reasons.extend(
            Reason("reference", f"names another file: {name!r}") for name in checking.outside(found)
        )
        errors = (
            finding
            for finding in checking.check_files(storage, found)
            if finding.severity is Severity.ERROR
        )
        reasons.extend(
            Reason("damaged", f"{finding.where}: {finding.what}")
            for finding in islice(errors, _FINDINGS_MAX)
        )
        for disk in found.disks:
            with closing(package.slice_of(open_storage(location), disk)) as part:
                verdict = _inspect_image(part, None, size_max)
            sizes.append(verdict.size)
            reasons.extend(
                Reason(reason.code, f"disk {disk.number}: {reason.what}")
                for reason in verdict.reasons
            )
    except UnsupportedFeatureError as error:
        reasons.append(Reason("unsupported", str(error.args[0])))
    except FormatError as error:
        reasons.append(Reason("damaged", str(error.args[0])))
    return Verdict(kind, sizes[0] if sizes else None, tuple(dict.fromkeys(reasons)))


def _inspect_image(storage: Storage, format_name: str | None, size_max: int | None) -> Verdict:
    found = formats.matches(storage)
    name = found[0] if found else "raw"
    reasons = list(_formats(found, format_name))
    if not found:
        reasons.extend(_foreign(storage))
    if name != "raw":
        reasons.extend(_disguise(storage, name))
    size: int | None = None
    gate = _DeafGate()
    try:
        image = formats.get(name).open(storage, gate)
        size = image.size
        found_wrong = list(_check(storage, name, gate))
        if not (gate.asked and isinstance(formats.get(name), Gapped)):
            reasons += found_wrong  # else it is one of several files, which lack here
    except UnsupportedFeatureError as error:
        reasons.append(Reason("unsupported", str(error.args[0])))
    except FormatError as error:
        if not gate.asked:
            reasons.append(Reason("damaged", str(error.args[0])))
    reasons.extend(_references(list(dict.fromkeys(gate.asked))))
    if size is not None and size_max is not None and size > size_max:
        reasons.append(
            Reason(
                "size",
                f"expected a disk of at most {format_size(size_max)}, found {format_size(size)}",
            )
        )
    return Verdict(name, size, tuple(dict.fromkeys(reasons)))


def _references(asked: list[str]) -> Iterator[Reason]:
    if len(asked) > _NAMED_MAX:
        shown = ", ".join(map(repr, asked[:_NAMED_MAX]))
        yield Reason("reference", f"needs other files: {shown} …")
        return
    for name in asked:
        yield Reason("reference", f"names another file: {name!r}")


def _formats(found: list[str], expected: str | None) -> Iterator[Reason]:
    if len(found) > 1:
        yield Reason("several-formats", f"has the marks of {' and '.join(found)}")
    name = found[0] if found else "raw"
    if expected is None:
        return
    if kinds.by_name(expected) is not None or formats.entry(expected).name != name:
        yield Reason("several-formats", f"is said to be {expected}, and looks like {name}")


def _foreign(storage: Storage) -> Iterator[Reason]:
    """A container that is known by its marks and cannot be judged."""
    try:
        formats.detect(storage)
    except UnsupportedFeatureError as error:
        yield Reason("unsupported", str(error.args[0]))


def _disguise(storage: Storage, name: str) -> Iterator[Reason]:
    """A container that is a bootable disk, too, if somebody takes it for raw."""
    seen = describe(raw.FORMAT.open(storage, _DeafGate()))
    if seen.filesystem is not None:
        yield Reason(
            "several-formats", f"is {name}, and as a raw disk it is {seen.filesystem.kind}"
        )
    elif seen.table is not None:
        yield Reason(
            "several-formats", f"is {name}, and as a raw disk it has a {seen.table.kind} table"
        )


def _check(storage: Storage, name: str, gate: _DeafGate) -> Iterator[Reason]:
    format_ = formats.get(name)
    if not isinstance(format_, Checkable):
        return
    count = 0
    for finding in format_.check(storage, gate, repair=False):
        if finding.severity is not Severity.ERROR:
            continue
        count += 1
        if count > _FINDINGS_MAX:
            return
        yield Reason("damaged", f"{finding.where}: {finding.what}")


class _DeafGate:
    """Opens nothing, and remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def parent(self, reference: Reference, beside: Storage) -> Source:
        """Not opened."""
        return Unavailable(reference.name or "parent", self._refuse(reference, beside))

    def data_file(self, reference: Reference, beside: Storage) -> Storage:
        """Not opened."""
        return UnavailableFile(reference.name or "data file", self._refuse(reference, beside))

    def siblings(self, beside: Storage, suffix: str) -> Iterator[Storage]:
        """None: whoever looks for a parent by its UUID does not find it."""
        return iter(())

    def passphrase(self, name: str) -> bytes:
        """Nobody is asked.

        Raises:
            PassphraseError: always.
        """
        raise PassphraseError("is encrypted", name=name)

    def _refuse(self, reference: Reference, beside: Storage) -> ImagingError:
        name = reference.name or reference.uuid or "a parent"
        self.asked.append(name)
        return ReferenceRefusedError(f"names {name!r}", name=beside.name)
