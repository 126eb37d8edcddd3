"""Numbers of the protocol.

Source: NetworkBlockDevice/nbd ``doc/proto.md``, "Values".
"""

from __future__ import annotations

import enum
from typing import Final

PORT: Final = 10809

CA_FILE: Final = "ca-cert.pem"
"""Names in a folder of certificates, as QEMU and libnbd have them: who vouches for all others."""

SERVER_FILES: Final = ("server-cert.pem", "server-key.pem")
CLIENT_FILES: Final = ("client-cert.pem", "client-key.pem")

GREETING: Final = b"NBDMAGIC"
OPTION_MAGIC: Final = 0x49484156454F5054  # "IHAVEOPT"
OLD_STYLE_MAGIC: Final = 0x00420281861253
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9
REQUEST_MAGIC: Final = 0x25609513
SIMPLE_REPLY_MAGIC: Final = 0x67446698
CHUNK_MAGIC: Final = 0x668E33EF

STRING_BYTES_MAX: Final = 4096
"""Of a name or a message."""

DESCRIPTORS_MAX: Final = 1 << 20
"""In one chunk of block status."""

ALLOCATION: Final = "base:allocation"
"""The context that tells data from holes and zeros."""


class Handshake(enum.IntFlag):
    """Flags that both sides exchange first."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Feature(enum.IntFlag):
    """Transmission flags: what a server offers of an export."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    FLUSH = 4
    FUA = 8
    ROTATIONAL = 16
    TRIM = 32
    WRITE_ZEROES = 64
    DF = 128
    MULTI_CONN = 256
    RESIZE = 512
    CACHE = 1024
    FAST_ZERO = 2048


class Option(enum.IntEnum):
    """What a client may ask for before transmission."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Reply(enum.IntEnum):
    """Answers to options; errors have the highest bit set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = (1 << 31) + 1
    ERR_POLICY = (1 << 31) + 2
    ERR_INVALID = (1 << 31) + 3
    ERR_PLATFORM = (1 << 31) + 4
    ERR_TLS_REQD = (1 << 31) + 5
    ERR_UNKNOWN = (1 << 31) + 6
    ERR_SHUTDOWN = (1 << 31) + 7
    ERR_BLOCK_SIZE_REQD = (1 << 31) + 8
    ERR_TOO_BIG = (1 << 31) + 9


class Info(enum.IntEnum):
    """Kinds of facts about an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Command(enum.IntEnum):
    """Requests of transmission."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7
    RESIZE = 8


class CommandFlag(enum.IntFlag):
    """How a request is to be done."""

    FUA = 1
    NO_HOLE = 2
    DF = 4
    REQ_ONE = 8
    FAST_ZERO = 16


class ChunkType(enum.IntEnum):
    """Kinds of structured replies; errors have bit 15 set."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


CHUNK_DONE: Final = 1
"""Flag of the last chunk of a reply."""

CHUNK_ERROR: Final = 1 << 15
"""Set in the types of chunks that tell an error."""


class State(enum.IntFlag):
    """Flags of ``base:allocation``."""

    HOLE = 1
    ZERO = 2


class Errno(enum.IntEnum):
    """What may be wrong with a request."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108
