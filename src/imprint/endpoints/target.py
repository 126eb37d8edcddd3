"""Making targets: a new file, a device, or a stream, in a chosen format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imprint import formats
from imprint.core.errors import RefusedError, UnsupportedFeatureError, UsageError
from imprint.core.formats import CreateSpec, Resuming, parse_options
from imprint.core.system import is_file
from imprint.endpoints.appliance import kinds
from imprint.endpoints.location import Location, Where, parse
from imprint.endpoints.open import Access, files_of, open_image
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile, check_replaceable, discard
from imprint.storage.sets import begin_set, commit_set

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Reference, Source, Storage, Target
    from imprint.core.formats import Format

Confirm = Callable[[str, str], bool]
"""Given a device's name and its description: ``True`` if the user typed the name back."""


@dataclass(frozen=True)
class TargetRequest:
    """What the user wants to have written.

    Attributes:
        address: of the target.
        format: its name; ``None``: by suffix, raw for devices and streams.
        options: ``-o`` options as text.
        force: replace a file that exists; write a device without asking.
        confirm: asks before a device is written; ``None``: there is nobody to ask.
        uuid: of the new image, where its format has one.
        time_s: when it shall say that it was made; ``None``: now.
    """

    address: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    confirm: Confirm | None = None
    uuid: str | None = None
    time_s: int | None = None

    @property
    def location(self) -> Location:
        """The parsed address.

        Raises:
            UsageError: if it cannot be a target.
        """
        location = parse(self.address)
        if location.where is Where.REPOSITORY:
            raise UsageError(
                "expected a file, a device or - as target, found a repository",
                name=self.address,
                advice="capture and convert add to repositories",
            )
        if location.is_part or location.where in (Where.HTTP, Where.INSIDE):
            raise UsageError("expected a file, a device or - as target", name=self.address)
        return location

    def chosen_format(self) -> Format:
        """The format that it will be in.

        Raises:
            UsageError: if neither ``format`` nor the suffix says it, or it is a package.
        """
        kind = kinds.chosen(self)
        if kind is not None:
            raise UsageError(f"{kind.name}: only convert makes packages", name=self.address)
        if self.format is not None:
            return formats.get(self.format)
        location = self.location
        if location.where is not Where.FILE:
            return formats.get("raw")
        name = formats.by_suffix(location.base)
        if name is None:
            raise UsageError(
                "expected a suffix that names a format",
                name=self.address,
                advice=f"-O names it: one of {', '.join(_writable_names())}",
            )
        return formats.get(name)

    def spec(
        self,
        size: int,
        access: Access,
        parent: Reference | None = None,
        *,
        sector: int = 512,
        sources: tuple[str, ...] = (),
    ) -> CreateSpec:
        """The options parsed, for a disk of ``size`` bytes in sectors of ``sector``.

        Files of ``sources`` are neither replaced nor removed.
        """
        format_ = self.chosen_format()
        parent_source: Source | None = None
        if parent is not None and parent.name is not None:
            folder = self.location.path.parent
            parent_access = Access(
                format=parent.format, allowed=access.allowed, passphrase=access.passphrase
            )
            parent_source = open_image(str(folder / parent.name), parent_access)
        options = dict(self.options)
        if self.uuid is not None and any(option.name == "uuid" for option in format_.options):
            options.setdefault("uuid", self.uuid)
        return CreateSpec(
            size,
            TargetGate(access, self.location, may_replace=self.force, sources=sources),
            parse_options(
                format_.name, format_.options, options, used_only=access.used is not None
            ),
            parent,
            parent_source,
            self.time_s,
            sector,
        )


class TargetGate:
    """What a new image may have from outside: a passphrase, and its own data file."""

    def __init__(
        self,
        access: Access,
        location: Location,
        *,
        may_replace: bool = False,
        sources: tuple[str, ...] = (),
    ) -> None:
        """Args as follows.

        Args:
            access: as for reading.
            location: of the new image.
            may_replace: the user permits to replace an image that exists, with its files.
            sources: what is being read: neither replaced nor removed, whatever its name.
        """
        self._gate = access.gate()
        self._new_passphrase = access.new_passphrase
        self._location = location
        self._may_replace = may_replace
        self._sources = sources
        self._made: list[Path] = []

    @property
    def made(self) -> list[Path]:
        """The files that the image has besides its own, when it is finished."""
        return [path for path in dict.fromkeys(self._made) if is_file(path)]

    def parent(self, reference: Reference, beside: Storage) -> Source:
        """As for reading."""
        return self._gate.parent(reference, beside)

    def siblings(self, beside: Storage, suffix: str) -> Iterator[Storage]:
        """As for reading."""
        return self._gate.siblings(beside, suffix)

    def passphrase(self, name: str) -> bytes:
        """As for reading, unless new ones are asked for in another way."""
        ask = self._new_passphrase
        return self._gate.passphrase(name) if ask is None else ask(str(self._location.path))

    def data_file(self, reference: Reference, beside: Storage) -> Storage:
        """Create it: beside the image, and only if it does not exist.

        Raises:
            RefusedError: if it exists.
            UsageError: if it would lie in another folder.
        """
        del beside
        try:
            return self._make(reference.name or "", may_replace=False)
        except RefusedError as error:
            if self._may_replace and error.advice:  # which goes for the image alone
                error.advice = "remove it, or choose another name"
            raise

    def make_file(self, name: str, beside: Storage, *, is_extra: bool) -> Storage:
        """Make a further file of the image, in the place of an old one if the user permits."""
        del beside
        return self._make(name, may_replace=self._may_replace and not is_extra)

    def remove_file(self, name: str, beside: Storage) -> None:
        """Remove a file of the image that was replaced."""
        del beside
        path = self._beside(name)
        if not self._is_source(path):
            discard(path)

    def begin_set(self, names: Iterator[str], beside: Storage, *, at_least: int) -> list[str]:
        """Put right what a killed attempt has left; what is in the way of a new image.

        Raises:
            RefusedError: if it may not be replaced, or is being read.
        """
        del beside
        first = self._location.path
        check_replaceable(first, may_replace=self._may_replace)
        found = begin_set(first, map(self._beside, names), at_least=at_least)
        for path in (first, *found):  # the first one may be back only now
            check_replaceable(path, may_replace=self._may_replace)
            if self._is_source(path):
                raise RefusedError("is the source as well", name=str(path))
        return [path.name for path in found]

    def commit_set(self, files: Sequence[Storage], old: Sequence[str]) -> None:
        """Let all files of the image take their names, in the place of an old one."""
        made = [file for file in files if isinstance(file, PendingFile)]
        assert len(made) == len(files)
        commit_set(made, map(self._beside, old))

    def replaced(self, beside: Storage) -> Storage | None:
        """The old image, if it may be replaced."""
        del beside
        path = self._location.path
        return FileStorage.open(path) if self._may_replace and is_file(path) else None

    def _make(self, name: str, *, may_replace: bool) -> Storage:
        path = self._beside(name)
        if self._is_source(path):
            raise RefusedError("is the source as well", name=str(path))
        storage = PendingFile.create(path, may_replace=may_replace)
        self._made.append(path)
        return storage

    def _is_source(self, path: Path) -> bool:
        return any(_is_same(path, Path(source)) for source in self._sources)

    def _beside(self, name: str) -> Path:
        path = Path(name)
        if not name or path.name != name:
            raise UsageError(
                f"the data file lies beside the image: expected a name, found {name!r}"
            )
        return self._location.path.with_name(name)


def create_target(request: TargetRequest, spec: CreateSpec) -> Target:
    """Begin a new file in the request's format, under a temporary name.

    Raises:
        RefusedError: if it exists and may not be replaced.
        UsageError: if the options make no sense.
    """
    location = request.location
    if location.where is not Where.FILE:
        raise UsageError("expected a file", name=request.address)
    storage = PendingFile.create(location.path, may_replace=request.force)
    try:
        return request.chosen_format().create(storage, spec)
    except BaseException:
        storage.abort()
        raise


def resume_target(request: TargetRequest, spec: CreateSpec) -> Target:
    """Take up the unfinished file that an earlier attempt has left."""
    format_ = request.chosen_format()
    if not isinstance(format_, Resuming):
        raise UnsupportedFeatureError(f"writing {format_.name} cannot be resumed")
    storage = PendingFile.resume(request.location.path, may_replace=request.force)
    try:
        return format_.resume(storage, spec)
    except BaseException:
        storage.close()
        raise


def check_not_source(request: TargetRequest, sources: tuple[str, ...]) -> None:
    """Refuse to write what is being read.

    Raises:
        RefusedError: if the target is one of ``sources``, under whatever name.
    """
    location = request.location
    if location.where is Where.STREAM:
        return
    for address in sources:
        source = parse(address).outermost
        if location.where is source.where is Where.NBD and location.base == source.base:
            raise RefusedError("is the source as well", name=request.address)
        if source.where not in (Where.FILE, Where.DEVICE):
            continue
        both_devices = source.where is location.where is Where.DEVICE
        if _is_same(location.path, source.path) or (both_devices and _overlap(location, source)):
            raise RefusedError("is the source as well", name=request.address)


def _writable_names() -> list[str]:
    """Of all formats that a target may be in."""
    images = (format_ for format_ in map(formats.get, formats.names()) if format_.support.write)
    packages = (kind for kind in kinds.KINDS if kind.support.write)
    return [*(format_.name for format_ in images), *(kind.name for kind in packages)]


def check_not_read(path: Path, source: Source) -> None:
    """Refuse to write a file that a disk is read from.

    Raises:
        RefusedError: if it is one of those, under whatever name.
    """
    if any(_is_same(path, Path(name)) for name in files_of(source)):
        raise RefusedError("is the source as well", name=str(path))


def _is_same(one: Path, other: Path) -> bool:
    """Whether both are there, and the same file."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _overlap(one: Location, other: Location) -> bool:
    """Whether one device is a partition of the other, or both of the same one."""
    from imprint.storage.device_facts import System

    return System().overlap(one.path, other.path)


def stored_size(path: Path, spec: CreateSpec | None = None) -> int:
    """Bytes that a finished file takes up, with all that ``spec`` has made beside it."""
    total = 0
    others = spec.opener.made if spec and isinstance(spec.opener, TargetGate) else []
    for each in (path, *others):
        storage = FileStorage.open(each)
        try:
            total += storage.stored_size
        finally:
            storage.close()
    return total
