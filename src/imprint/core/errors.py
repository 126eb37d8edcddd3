"""Every error that imprint raises on purpose.

::

    ImagingError                      exit code
    ├── UsageError                    2   the request itself makes no sense
    ├── FormatError                   3   the image is not what it claims to be
    │   ├── CorruptImageError         3
    │   │   └── TruncatedImageError   3
    │   ├── ReferenceRefusedError     3   names a file outside the permitted folders
    │   └── UnsupportedFeatureError   4
    ├── ReadError                     3   the source could not be read
    ├── NotFoundError                 3   no file of that name in a file system
    ├── PassphraseError               3   missing or wrong
    ├── TargetError                   5   the target could not be written
    │   ├── TargetTooSmallError       5
    │   └── TargetBusyError           5
    ├── RefusedError                  5   would damage something; nothing was done
    ├── RepositoryError               7   the repository is damaged, or not what it claims to be
    │   ├── RepositoryBusyError       7   somebody else is at work in it
    │   └── LostDataError             7   what a disk in it holds there; a ReadError as well
    ├── NetworkError                  8
    └── Cancelled                     130 the user stopped it

A message is one line: *thing: what was expected, what was found*. ``advice`` is
at most one further line that says what to do.
"""

from __future__ import annotations

from typing import ClassVar


class ImagingError(Exception):
    """Base of all errors that are raised on purpose.

    Attributes:
        name: what the error is about: a file, device or address.
        offset: where in it, in bytes, if that is known.
        length: how many bytes are concerned, if that is known.
        advice: one line that tells the user what to do, or ``None``.
    """

    exit_code: ClassVar[int] = 3

    def __init__(
        self,
        message: str,
        *,
        name: str | None = None,
        offset: int | None = None,
        length: int | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.offset = offset
        self.length = length
        self.advice = advice

    def __str__(self) -> str:
        message = str(self.args[0])
        return message if self.name is None else f"{self.name}: {message}"


class UsageError(ImagingError):
    """The request makes no sense, whatever the files hold."""

    exit_code = 2


class FormatError(ImagingError):
    """The image is not what it claims to be."""


class CorruptImageError(FormatError):
    """A structure of the image contradicts its specification or itself."""


class TruncatedImageError(CorruptImageError):
    """The image ends before something that it refers to."""


class ReferenceRefusedError(FormatError):
    """The image names another file that may not be opened, or that is missing."""


class UnsupportedFeatureError(FormatError):
    """The image is valid as far as can be seen, but needs what imprint cannot do."""

    exit_code = 4


class ReadError(ImagingError):
    """The source could not be read."""


class NotFoundError(ImagingError):
    """A file system has no file of a name that was asked for."""


class PassphraseError(ImagingError):
    """A passphrase is needed and missing, or it is wrong."""


class TargetError(ImagingError):
    """The target could not be written."""

    exit_code = 5


class TargetTooSmallError(TargetError):
    """The target has less room than the source needs."""


class TargetBusyError(TargetError):
    """The target is mounted or in use by somebody else."""


class RefusedError(ImagingError):
    """Doing this would damage something; nothing was done."""

    exit_code = 5


class RepositoryError(ImagingError):
    """The repository is damaged, locked, or not what it claims to be."""

    exit_code = 7


class RepositoryBusyError(RepositoryError):
    """Somebody is at work in the repository who must not be disturbed; nothing was done."""


class LostDataError(RepositoryError, ReadError):
    """Part of a disk in a repository is damaged or missing; all else of it can be read."""


class NetworkError(ImagingError):
    """The other side of a connection failed or does not answer."""

    exit_code = 8


class Cancelled(ImagingError):
    """The user stopped the operation."""

    exit_code = 130
