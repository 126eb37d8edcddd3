"""The gate: which files an image may open besides itself.

Images are hostile until proven otherwise: a backing file name is a request to read any file
of the system (CVE-2015-5163, CVE-2022-47951, CVE-2024-32498). So a named file is opened only
if it is a regular file in the image's own folder, or in one that the user has allowed.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from imprint import formats
from imprint.core.errors import ImagingError, PassphraseError, ReferenceRefusedError, UsageError
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.core.limits import CHAIN_DEPTH_MAX
from imprint.core.system import exists, is_file
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile, discard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Passphrase, Reference, Source, Storage, Traits
    from imprint.core.extent import Extent
    from imprint.core.formats import SizePolicy

_NOT_A_PATH = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_SIBLINGS_MAX = 4096


class FolderGate:
    """An :class:`~imprint.core.contracts.Opener` with the policy above.

    One gate serves one chain: it counts its depth and knows what is open already.
    """

    def __init__(
        self,
        *,
        allowed: Iterable[Path] = (),
        passphrase: Passphrase | None = None,
        on_event: OnEvent = ignore,
        lenient: bool = False,
        size_policy: SizePolicy | None = None,
    ) -> None:
        """Args as follows.

        Args:
            allowed: folders where parents may live, besides the image's own.
            passphrase: asks for secrets.
            on_event: told what is noteworthy about a chain.
            lenient: a parent that cannot be opened fails when it is read, not before;
                for looking at an image that lies alone.
            size_policy: which size of a parent counts, if its format says it twice.
        """
        self._allowed = tuple(folder.resolve() for folder in allowed)
        self._passphrase = passphrase
        self._on_event = on_event
        self._lenient = lenient
        self._size_policy: SizePolicy | None = size_policy
        self._seen: set[tuple[int, int]] = set()
        self._images = 1

    def parent(self, reference: Reference, beside: Storage) -> Source:
        """Open what an image builds upon; see :class:`~imprint.core.contracts.Opener`."""
        try:
            return self._open_parent(reference, beside)
        except ImagingError as error:
            if self._lenient:
                return Unavailable(reference.name or "parent", error)
            raise

    def data_file(self, reference: Reference, beside: Storage) -> Storage:
        """Open the file that holds an image's data."""
        try:
            path = self._permitted(reference.name or "", beside)
            storage = FileStorage.open(path, writable=beside.is_writable)
        except ImagingError as error:
            if self._lenient:
                return UnavailableFile(reference.name or "data file", error)
            raise
        try:
            self._remember(storage, beside)
        except BaseException:
            storage.close()
            raise
        return storage

    def make_file(self, name: str, beside: Storage, *, is_extra: bool = True) -> Storage:
        """Make a further file of an image that is being changed; none is ever replaced."""
        del is_extra
        return PendingFile.create(_neighbour(name, beside), may_replace=False)

    def remove_file(self, name: str, beside: Storage) -> None:
        """Remove a file beside the image."""
        discard(_neighbour(name, beside))

    def replaced(self, beside: Storage) -> Storage | None:
        """Nothing: the image is changed where it is."""
        del beside
        return None

    def siblings(self, beside: Storage, suffix: str) -> Iterator[Storage]:
        """Other regular files with ``suffix`` in the permitted folders; the caller closes them."""
        if not isinstance(beside, FileStorage):
            return
        own = beside.path.resolve()
        for folder in (own.parent, *self._allowed):
            names = sorted(folder.glob(f"*{suffix}"))[:_SIBLINGS_MAX]
            for path in names:
                if path.is_symlink() or path.resolve() == own:  # of a loop, nothing is resolved
                    continue
                try:
                    storage = FileStorage.open(path)
                except ImagingError:
                    continue  # a neighbour that cannot be read is not the one that is looked for
                yield storage

    def passphrase(self, name: str) -> bytes:
        """Ask the user, or whoever answers for them."""
        if self._passphrase is None:
            raise PassphraseError(
                "is encrypted: expected a passphrase",
                name=name,
                advice="give it with --passphrase-file or in IMPRINT_PASSPHRASE",
            )
        return self._passphrase(name)

    def _open_parent(self, reference: Reference, beside: Storage) -> Source:
        path = self._permitted(reference.name or "", beside)
        storage = FileStorage.open(path)
        try:
            self._count(storage, beside)
            name = reference.format
            if name is None:
                name = formats.detect(storage)
                self._on_event(
                    Finding(
                        Severity.WARNING,
                        beside.name,
                        f"does not say which format its parent {path} has; it looks like {name}",
                    )
                )
            return formats.get_for(name, self._size_policy).open(storage, self)
        except BaseException:
            storage.close()
            raise

    def _permitted(self, name: str, beside: Storage) -> Path:
        """The path that ``name`` stands for, if it may be opened."""

        def refused(why: str, advice: str | None = None) -> ReferenceRefusedError:
            return ReferenceRefusedError(f"names {name!r}: {why}", name=beside.name, advice=advice)

        if not isinstance(beside, FileStorage):
            raise refused("an image that is not a file cannot refer to files")
        own_folder = beside.path.resolve().parent
        # A time of day in a file's name looks like the beginning of a URL, too.
        is_path = _NOT_A_PATH.match(name) is None or exists(own_folder / name)
        if not name or "\0" in name or not is_path:
            raise refused("expected the path of a file")
        try:
            path = self._find(own_folder, name).resolve()
        except (OSError, ValueError, RuntimeError) as failure:  # too long, no text, or a loop
            raise refused("expected a name that a file can have") from failure
        folders = (own_folder, *self._allowed)
        # Not its subfolders: for an image in / or in a home that would be everything.
        allowed = any(folder in path.parents for folder in self._allowed)
        if path.parent != own_folder and not allowed:
            listed = " or ".join(str(folder) for folder in folders)
            raise refused(
                f"expected a file in {listed}", f"--allow-parent {path.parent} permits it"
            )
        try:
            mode = path.stat().st_mode
        except OSError as failure:
            raise refused((failure.strerror or "cannot be opened").lower()) from failure
        if not stat.S_ISREG(mode):
            raise refused("expected a regular file")
        return path

    def _find(self, own_folder: Path, name: str) -> Path:
        """Relative names are relative to the image; else to an allowed folder that has the file."""
        path = own_folder / name
        if not exists(path):
            for folder in self._allowed:
                if is_file(folder / Path(name).name):
                    return folder / Path(name).name
        return path

    def _count(self, storage: FileStorage, beside: Storage) -> None:
        """Remember a parent, and how deep the chain is. Data files make no chain deeper."""
        self._remember(storage, beside)
        self._images += 1
        if self._images > CHAIN_DEPTH_MAX:
            raise ReferenceRefusedError(
                f"expected a chain of at most {CHAIN_DEPTH_MAX} images", name=beside.name
            )

    def _remember(self, storage: FileStorage, beside: Storage) -> None:
        """Know the chain's members: a file that comes twice is a loop."""
        if not self._seen and isinstance(beside, FileStorage):
            self._seen.add(beside.identity)
        if storage.identity in self._seen:
            raise ReferenceRefusedError(
                f"expected a chain, found a loop through {storage.name}", name=beside.name
            )
        self._seen.add(storage.identity)


def _neighbour(name: str, beside: Storage) -> Path:
    """The path of a file in the folder of an image.

    Raises:
        UsageError: if the image is no file, or ``name`` not the name of one.
    """
    if not isinstance(beside, FileStorage) or Path(name).name != name or "\0" in name:
        raise UsageError(f"expected the name of a file beside the image, found {name!r}")
    return beside.path.resolve().parent / name


class Unavailable:
    """Stands for a parent that could not be opened: every use says why."""

    def __init__(self, name: str, error: ImagingError) -> None:
        self._name = name
        self.error = error

    @property
    def name(self) -> str:
        """As the image calls it."""
        return self._name

    @property
    def size(self) -> int:
        """Not known."""
        raise self.error

    @property
    def traits(self) -> Traits:
        """Not known."""
        raise self.error

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fails."""
        raise self.error

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Fails."""
        raise self.error

    def close(self) -> None:
        """Nothing is open."""


class UnavailableFile(Unavailable):
    """Stands for a data file that could not be opened."""

    @property
    def is_writable(self) -> bool:
        """It is not."""
        return False

    @property
    def stored_size(self) -> int:
        """Not known."""
        raise self.error

    def write(self, data: memoryview, offset: int) -> None:
        """Fails."""
        raise self.error

    def zero(self, offset: int, length: int) -> None:
        """Fails."""
        raise self.error

    def resize(self, size: int) -> None:
        """Fails."""
        raise self.error

    def can_offload(self, source: Storage) -> bool:
        """Nothing can be done with it."""
        del source
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Fails."""
        raise self.error

    def flush(self) -> None:
        """Fails."""
        raise self.error

    def commit(self) -> None:
        """Fails."""
        raise self.error

    def abort(self) -> None:
        """Nothing is open."""


def no_passphrase(name: str) -> bytes:
    """A :class:`~imprint.core.contracts.Passphrase` of those who do not look into what is locked.

    Raises:
        PassphraseError: always.
    """
    raise PassphraseError("is not looked into", name=name)
