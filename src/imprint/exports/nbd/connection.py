"""One client: its requests are received by one thread, which also answers what is at hand.

What is in the page cache goes out at once, large runs straight from their file to the socket.
What has to be decoded, fetched or waited for is done by a crew, so that many requests are
under way and replies come as they are done.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
from typing import TYPE_CHECKING, Final

from imprint.core.channel import SourceFailedError
from imprint.core.errors import ImagingError, NetworkError
from imprint.core.units import KIB, MIB
from imprint.exports.nbd.crew import Crew
from imprint.exports.nbd.export import FILE_BYTES_MIN, MESSAGE_BYTES_MAX
from imprint.protocols.nbd.constants import Command, CommandFlag, Errno
from imprint.protocols.nbd.serving import CONTEXT_ID
from imprint.protocols.nbd.transmission import (
    REQUEST,
    Request,
    data_head,
    end_chunk,
    error_chunk,
    hole_chunk,
    simple_reply,
    status_chunk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.channel import Channel
    from imprint.core.contracts import HasDescriptor
    from imprint.exports.nbd.export import Export, Segment
    from imprint.protocols.nbd.serving import Agreed

_PIECE_BYTES: Final = 256 * KIB  # read at a time by each thread
_WHOLE_BYTES_MAX: Final = 1 * MIB  # of a reply that must not be cut
_HELD_BYTES_MAX: Final = 256 * KIB
_HELD_PARTS_MAX: Final = 64
_ZEROS: Final = bytes(64 * KIB)
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# What may be set, by command; anything else is refused.
_FLAGS: Final = {
    Command.READ: CommandFlag.FUA | CommandFlag.DF,
    Command.WRITE: CommandFlag.FUA,
    Command.FLUSH: CommandFlag.FUA,
    Command.TRIM: CommandFlag.FUA,
    Command.CACHE: CommandFlag.FUA,
    Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE,
    Command.BLOCK_STATUS: CommandFlag.FUA | CommandFlag.REQ_ONE,
}
_FILLING: Final = (Command.WRITE, Command.WRITE_ZEROES)
_WRITING: Final = (*_FILLING, Command.TRIM)

_log = logging.getLogger(__name__)


class _Refusal(Exception):  # noqa: N818 - the answer to a request
    """A request that is answered by an error."""

    def __init__(self, error: Errno, message: str) -> None:
        super().__init__(message)
        self.error = error


class _Answered(Exception):  # noqa: N818 - the rest of a reply is not wanted
    """A request that was answered by an error already."""


class Transmission:
    """Serves one client until it leaves."""

    def __init__(self, channel: Channel, export: Export, agreed: Agreed) -> None:
        self._channel = channel
        self._export = export
        self._is_structured = agreed.is_structured
        self._has_status = agreed.has_status
        self._crew = Crew("nbd")
        self._held: list[bytes | memoryview] = []
        self._held_bytes = 0
        self._can_look = hasattr(os, "RWF_NOWAIT")

    def run(self) -> None:
        """Answer requests until the client says goodbye.

        Raises:
            OSError: if the connection breaks, or the client is too slow.
            NetworkError: if the client does not keep to the protocol.
        """
        try:
            self._receive()
        except ConnectionResetError:
            pass  # no more requests come, but replies may be waited for
        except BaseException:
            self._channel.break_off()
            raise
        finally:
            self._crew.dismiss()
        self._flush()

    def _receive(self) -> None:
        channel = self._channel
        while True:
            if not channel.has(REQUEST.size):
                self._flush()
            request = Request.parse(channel.receive(REQUEST.size, is_idle=True))
            if request.command == Command.DISC:
                return
            self._answer(request)

    def _answer(self, request: Request) -> None:
        try:
            if request.command == Command.WRITE and request.length > MESSAGE_BYTES_MAX:
                raise NetworkError(f"a write of {request.length} bytes")
            self._check(request)
            if request.command == Command.READ:
                self._read(request)
            elif request.command == Command.BLOCK_STATUS:
                self._crew.submit(functools.partial(self._do, request, self._status))
            elif request.command == Command.WRITE:
                self._write(request)
            else:
                self._do(request, self._other)
        except _Refusal as refusal:
            if request.command == Command.WRITE:
                self._channel.skip(request.length)
            self._hold(self._error(request, refusal.error, str(refusal)))
        except _Answered:
            pass

    def _check(self, request: Request) -> None:
        """Refuse what the protocol or the export does not allow."""
        allowed = _FLAGS.get(request.command)  # type: ignore[call-overload]
        if allowed is None:
            raise _Refusal(Errno.EINVAL, "this command is not known here")
        if request.command in _WRITING and self._export.writer is None:
            raise _Refusal(Errno.EPERM, "the export is read-only")
        if request.flags & ~int(allowed):  # of a flag, ~ gives only those that have names
            raise _Refusal(Errno.EINVAL, "flags that do not belong to the command")
        if request.offset + request.length > self._export.offer.size:
            error = Errno.ENOSPC if request.command in _FILLING else Errno.EINVAL
            raise _Refusal(error, "behind the end of the export")
        if request.flags & CommandFlag.DF:
            if not self._is_structured:
                raise _Refusal(Errno.EINVAL, "DF without structured replies")
            if request.length > _WHOLE_BYTES_MAX:
                raise _Refusal(Errno.EOVERFLOW, "too much for one piece")
        if request.command == Command.READ and request.length > MESSAGE_BYTES_MAX:
            raise _Refusal(Errno.EINVAL, f"more than {MESSAGE_BYTES_MAX} bytes")
        if request.command == Command.BLOCK_STATUS and not (self._has_status and request.length):
            raise _Refusal(Errno.EINVAL, "no context was chosen, or nothing asked for")

    def _read(self, request: Request) -> None:
        if not request.length:
            self._hold(self._done(request))
            return
        segments = self._export.segments(request.offset, request.length)
        first = segments[0]
        if not self._is_structured or request.flags & CommandFlag.DF:
            if len(segments) == 1 and first.file is not None and self._read_now(request, first):
                return
            whole = self._whole if request.length <= _WHOLE_BYTES_MAX else self._streamed
            self._crew.submit(functools.partial(self._do, request, whole))
            return
        for index, segment in enumerate(segments):
            is_last = index == len(segments) - 1
            if segment.is_zero:
                self._hold(
                    hole_chunk(request.cookie, segment.offset, segment.length, is_last=is_last)
                )
            elif segment.file is None or not (
                self._send_now(request, segment, segment.file, is_last=is_last)
            ):
                if index:
                    self._flush()  # the last part must not come before the first ones
                rest = segments[index:]
                self._crew.submit(
                    functools.partial(
                        self._do, request, functools.partial(self._pieces, segments=rest)
                    )
                )
                return

    def _read_now(self, request: Request, segment: Segment) -> bool:
        """Answer by data of a file in one piece, if it is in memory."""
        if segment.length > _PIECE_BYTES:
            return False
        assert segment.file is not None
        data = self._look(segment.file, segment.position, segment.length)
        if data is None:
            return False
        if self._is_structured:
            head = data_head(request.cookie, segment.offset, segment.length, is_last=True)
        else:
            head = simple_reply(request.cookie)
        self._hold(head, data)
        return True

    def _send_now(
        self, request: Request, segment: Segment, file: HasDescriptor, *, is_last: bool
    ) -> bool:
        """Answer by data of a file, if it is in memory."""
        cookie, offset, length = request.cookie, segment.offset, segment.length
        if length < FILE_BYTES_MIN:
            data = self._look(file, segment.position, length)
            if data is None:
                return False
            self._hold(data_head(cookie, offset, length, is_last=is_last), data)
            return True
        if self._channel.is_secure or not self._is_at_hand(file, segment.position + length - 1):
            return False
        self._flush()
        head = data_head(cookie, offset, length, is_last=False)
        try:
            self._channel.send_file(head, file, segment.position, length)
        except SourceFailedError as failure:
            _log.warning("%s: %s", self._export.disk.name, failure)
            for start in range(failure.sent, length, len(_ZEROS)):
                self._channel.send(_ZEROS[: length - start])
            place = offset + failure.sent
            self._hold(error_chunk(cookie, Errno.EIO, "cannot be read", place))
            raise _Answered from failure
        if is_last:
            self._hold(end_chunk(cookie))
        return True

    def _look(self, file: HasDescriptor, position: int, length: int) -> memoryview | None:
        """Bytes of a file, if they are in memory; ``None``: they have to be waited for."""
        if not self._can_look:
            return None
        data = bytearray(length)
        try:
            count = os.preadv(file.fileno(), [data], position, os.RWF_NOWAIT)
        except OSError as failure:
            # Some file systems do not say: then every read is one that may take its time.
            self._can_look = failure.errno not in (errno.EOPNOTSUPP, errno.EINVAL)
            return None
        return memoryview(data) if count == length else None

    def _is_at_hand(self, file: HasDescriptor, position: int) -> bool:
        return not self._can_look or self._look(file, position, 1) is not None

    def _do(self, request: Request, work: Callable[[Request], None]) -> None:
        """Answer a request, by an error if it fails; runs in any thread."""
        try:
            try:
                work(request)
            except ImagingError as error:
                _log.warning("%s", error)
                number = _number(error)
                self._channel.send(self._error(request, number, str(error.args[0])))
            except OSError:
                raise
            except Exception:  # noqa: BLE001 - a defect ends the request, and not the server
                _log.exception("%s: a request has failed", self._export.disk.name)
                self._channel.send(self._error(request, Errno.EIO, "internal error"))
        except OSError:
            self._channel.break_off()  # who receives finds out

    def _pieces(self, request: Request, *, segments: list[Segment]) -> None:
        """Read and send what has to be read, piece by piece."""
        cookie, disk = request.cookie, self._export.disk
        end = request.offset + request.length
        buffer = memoryview(bytearray(min(_PIECE_BYTES, max(part.length for part in segments))))
        for segment in segments:
            stop = segment.offset + segment.length
            if segment.is_zero:
                is_last = stop == end
                chunk = hole_chunk(cookie, segment.offset, segment.length, is_last=is_last)
                self._channel.send(chunk)
                continue
            for start in range(segment.offset, stop, _PIECE_BYTES):
                view = buffer[: stop - start]
                try:
                    disk.readinto(view, start)
                except ImagingError as error:
                    _log.warning("%s", error)
                    message = str(error.args[0])
                    self._channel.send(error_chunk(cookie, Errno.EIO, message, start))
                    return
                is_last = start + len(view) == end
                self._channel.send(data_head(cookie, start, len(view), is_last=is_last), view)

    def _whole(self, request: Request) -> None:
        """Read all of it before anything is sent."""
        data = memoryview(bytearray(request.length))
        self._export.disk.readinto(data, request.offset)
        if self._is_structured:
            head = data_head(request.cookie, request.offset, request.length, is_last=True)
        else:
            head = simple_reply(request.cookie)
        self._channel.send(head, data)

    def _streamed(self, request: Request) -> None:
        """A large simple reply, which cannot tell of an error once it has begun."""
        disk, end = self._export.disk, request.offset + request.length
        view = memoryview(bytearray(_WHOLE_BYTES_MAX))
        disk.readinto(view, request.offset)

        def parts() -> Iterator[bytes | memoryview]:
            yield simple_reply(request.cookie)
            yield view
            for start in range(request.offset + len(view), end, len(view)):
                piece = view[: end - start]
                disk.readinto(piece, start)
                yield piece

        self._channel.send_pieces(parts())

    def _status(self, request: Request) -> None:
        only_one = bool(request.flags & CommandFlag.REQ_ONE)
        runs = self._export.status(request.offset, request.length, only_one=only_one)
        self._channel.send(status_chunk(request.cookie, CONTEXT_ID, runs))

    def _write(self, request: Request) -> None:
        """Store what follows the request, as it comes: no more than a piece is held."""
        writer = self._export.writer
        assert writer is not None
        view = memoryview(bytearray(min(request.length, _WHOLE_BYTES_MAX)))
        end = request.offset + request.length
        failure: ImagingError | None = None
        for start in range(request.offset, end, _WHOLE_BYTES_MAX):
            piece = view[: end - start]
            self._channel.receive_into(piece)
            if failure is None:
                try:
                    writer.write(piece, start)
                except ImagingError as error:
                    failure = error
        self._do(request, functools.partial(self._written, failure=failure))

    def _written(self, request: Request, *, failure: ImagingError | None) -> None:
        if failure is not None:
            raise failure
        if request.flags & CommandFlag.FUA:
            self._flush_disk()
        self._hold(self._done(request))

    def _other(self, request: Request) -> None:
        """Requests without data."""
        writer = self._export.writer
        if request.command == Command.CACHE:
            self._advise(request)
        elif request.command != Command.FLUSH and request.length:
            assert writer is not None
            keeps_room = bool(request.flags & CommandFlag.NO_HOLE) and not self._export.is_thin
            writer.zero(request.offset, request.length, keeps_room=keeps_room)
        if request.command == Command.FLUSH or request.flags & CommandFlag.FUA:
            self._flush_disk()
        self._hold(self._done(request))

    def _flush_disk(self) -> None:
        if self._export.writer is not None:
            self._export.writer.flush()

    def _advise(self, request: Request) -> None:
        """Let the system read what will be wanted."""
        length = min(request.length, MESSAGE_BYTES_MAX)
        if not hasattr(os, "posix_fadvise") or not length:
            return
        for segment in self._export.segments(request.offset, length):
            if segment.file is not None:
                fd = segment.file.fileno()
                os.posix_fadvise(fd, segment.position, segment.length, os.POSIX_FADV_WILLNEED)

    def _done(self, request: Request) -> bytes:
        return end_chunk(request.cookie) if self._is_structured else simple_reply(request.cookie)

    def _error(self, request: Request, error: Errno, message: str) -> bytes:
        if self._is_structured:
            return error_chunk(request.cookie, error, message)
        return simple_reply(request.cookie, error)

    def _hold(self, *parts: bytes | memoryview) -> None:
        """Send it together with what else there is to say; only in the thread that receives."""
        self._held += parts
        self._held_bytes += sum(map(len, parts))
        if self._held_bytes > _HELD_BYTES_MAX or len(self._held) > _HELD_PARTS_MAX:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            held, self._held, self._held_bytes = self._held, [], 0
            self._channel.send(*held)


def _number(error: ImagingError) -> Errno:
    """What the protocol calls an error."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
        return Errno.ENOSPC
    return Errno.EIO
