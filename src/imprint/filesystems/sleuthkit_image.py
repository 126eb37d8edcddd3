"""The disk that The Sleuth Kit reads, and what of it could not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.filesystems.isolated_worker import Kept, Pipe

UNREAD: Final = "it cannot be read"

_SECTOR_BYTES: Final = 512

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Losses(set[int]):
    """Sectors that the library could not read, since somebody asked.

    It makes zeros of a sector that it needs only a part of, as it does for inodes. Where it reads
    ahead in vain, it tries again with what it needs, from the same sector on.

    Source: The Sleuth Kit, ``tsk/img/img_io.cpp``, ``tsk_img_read_no_cache``.
    """

    def __init__(self, pipe: Pipe) -> None:
        """None yet; ``pipe`` is told that it was read in vain."""
        super().__init__()
        self._pipe = pipe

    def sure(self, ask: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> _T:
        """What the library says, if it could read all that it wanted for that.

        Raises:
            OSError: if it could not.
        """
        self.clear()
        found = ask(*args, **named)
        if self:
            self._pipe.read_failed = True
            raise OSError(UNREAD)
        return found

    def take(self, offset: int, *, is_lost: bool) -> None:
        """A read from an offset has succeeded, or not."""
        sector = offset // _SECTOR_BYTES
        (self.add if is_lost else self.discard)(sector)


def image_of(library: Any, kept: Kept, losses: Losses, volume_size: int) -> Any:  # noqa: ANN401
    """The library's own kind of disk; its base is known when that is loaded."""

    class Image(library.Img_Info):  # type: ignore[misc]
        """Reads from the volume."""

        def get_size(self) -> int:
            """Of the volume, in bytes."""
            return volume_size

        def read(self, offset: int, length: int) -> bytes:
            """Bytes of the volume, fewer at its end; nothing if they cannot be read.

            Less than was asked for is a failure to the library. It tries again without what it
            would have read ahead; an exception would be raised although that succeeds.
            """
            found = kept.read(offset, length)
            losses.take(offset, is_lost=len(found) < min(length, volume_size - offset))
            return found

        def close(self) -> None:
            """Leave the volume to its owner."""

    return Image(url="", type=library.TSK_IMG_TYPE_EXTERNAL)
