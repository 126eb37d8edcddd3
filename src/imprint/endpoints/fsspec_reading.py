"""Files of images as programs that read by fsspec expect them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from imprint.core.errors import ImagingError, NotFoundError, UsageError
from imprint.endpoints.opened import BUFFER_BYTES, ContentFile

if TYPE_CHECKING:
    import fsspec  # type: ignore[import-untyped]

    from imprint.core.contracts import Source


class _OpenFile(ContentFile):
    """A file of which errors are those of the system, too."""

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer`` as far as the file reaches, and say how far."""
        with translated("file"):
            return super().readinto(buffer)


class Reader(io.BufferedReader):
    """A file that is open, with a buffer, and with what programs know of all files of fsspec.

    Attributes:
        fs: where it is.
        path: in that.
        size: in bytes.
        blocksize: what is read at once.
    """

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str, content: Source) -> None:
        super().__init__(_OpenFile(content), BUFFER_BYTES)
        self.fs, self.path = fs, path
        self.size, self.blocksize = content.size, BUFFER_BYTES

    @property
    def mode(self) -> str:
        """It is only read."""
        return "rb"


class translated:  # noqa: N801 - used as a function
    """What callers of fsspec expect where nothing is found, or something else."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        if isinstance(failure, NotFoundError):
            raise FileNotFoundError(str(failure)) from failure
        if isinstance(failure, ImagingError) and not isinstance(failure, UsageError):
            raise OSError(str(failure)) from failure
