"""Images of several files that are made together and show together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imprint.core.contracts import FileMaking, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imprint.core.contracts import Opener, Storage, Traits
    from imprint.core.extent import Extent
    from imprint.core.image import WritableImage


@runtime_checkable
class SetMaking(FileMaking, Protocol):
    """An opener that can replace an image of several files as a whole."""

    def begin_set(self, names: Iterator[str], beside: Storage, *, at_least: int) -> list[str]:
        """Put right what a killed attempt has left, and say what is in the way of a new image.

        Args:
            names: of its further files, the second one first, without a folder.
            beside: its first file, which is being made.
            at_least: so many names are looked at, and then on up to the first free one.

        Returns:
            Those of the names that are taken, by files that may be replaced.

        Raises:
            RefusedError: if a name is taken by a file that may not be replaced.
            TargetBusyError: if another program is making one of the files.
        """

    def commit_set(self, files: Sequence[Storage], old: Sequence[str]) -> None:
        """Let finished files take their names, in the place of an old image.

        Whenever it is killed, the first name belongs to the old image with all of its files,
        to the new one with all of them, or to nothing: then :meth:`begin_set` brings the old
        image back.

        Args:
            files: made by ``make_file``, but for the first one.
            old: what :meth:`begin_set` returned.
        """


class FileSet:
    """The files of a new image, whose names say their order. The first one shows last."""

    def __init__(
        self,
        first: Storage,
        opener: Opener,
        name_of: Callable[[int], str],
        *,
        count_max: int,
        at_least: int = 1,
    ) -> None:
        """Begin with the first file.

        Args:
            first: stays the caller's if this fails.
            opener: makes the others.
            name_of: the name of the file of that number; the first one has number 1.
            count_max: how many files have names.
            at_least: how many files there will be, as far as that is known.

        Raises:
            RefusedError: if there are further files that may not be replaced: they would be
                taken for a part of the new image.
        """
        self.files = [first]
        self._opener = opener
        self._name_of = name_of
        self._old: list[str] = []
        if isinstance(opener, SetMaking):
            names = map(name_of, range(2, count_max + 1))
            self._old = opener.begin_set(names, first, at_least=at_least)

    def add(self) -> Storage:
        """The next file.

        Raises:
            RefusedError: if it is there and may not be replaced.
        """
        name, first = self._name_of(len(self.files) + 1), self.files[0]
        if isinstance(self._opener, FileMaking):
            file = self._opener.make_file(name, first, is_extra=False)
        else:
            file = self._opener.data_file(Reference(name, format="raw"), first)
        self.files.append(file)
        return file

    def commit(self) -> None:
        """Make all files durable, and let them take their names."""
        if isinstance(self._opener, SetMaking):
            self._opener.commit_set(self.files, self._old)
            return
        for file in self.files[1:]:
            file.flush()
        for file in (*self.files[1:], self.files[0]):
            file.commit()

    def abort(self) -> None:
        """Remove them, the last one first: what a kill leaves is found by counting."""
        for file in reversed(self.files):
            file.abort()


class FilesTarget:
    """A new image of several files. It cannot be resumed, so it does not offer checkpoints."""

    def __init__(self, image: WritableImage) -> None:
        """``image`` commits the files before the one that names them."""
        self._image = image

    @property
    def name(self) -> str:
        """Path of the file that names the others."""
        return self._image.name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._image.size

    @property
    def traits(self) -> Traits:
        """Those of the image."""
        return self._image.traits

    def write(self, data: memoryview, offset: int) -> None:
        """Store ``data``."""
        self._image.write(data, offset)

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros."""
        self._image.zero(offset, length)

    def can_offload(self, extent: Extent) -> bool:
        """Whether the system can move the extent."""
        return self._image.can_offload(extent)

    def copy_from(self, extent: Extent) -> None:
        """Let the system move it."""
        self._image.copy_from(extent)

    def commit(self) -> None:
        """Make all files durable and visible, the one that names them last."""
        self._image.commit()

    def abort(self) -> None:
        """Remove them all."""
        self._image.abort()
