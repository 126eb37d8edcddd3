"""What is said between us and a library in a process of its own, and how it is packed.

A message is :data:`HEAD`, and as many bytes as that says.
"""

from __future__ import annotations

import struct
from typing import Final

from imprint.core.units import KIB

HEAD: Final = struct.Struct("<cI")
"""Of a message: what it is, and the length of what follows."""

READ: Final = b"r"
"""The worker wants bytes of the volume: :data:`RANGE`."""
ALIVE: Final = b"."
"""The worker has read further by itself, and has nothing to say yet: no bytes follow."""
ANSWER: Final = b"a"
"""JSON."""
CONTENT: Final = b"c"
"""Bytes of a file."""
FAILED: Final = b"f"
"""JSON: one of ``isolated.FAILURES``, and why."""

RANGE: Final = struct.Struct("<QI")
OFFSET: Final = struct.Struct("<Q")
KNOWN_BYTES: Final = 128 * KIB
"""That are sent before a question: as much as The Sleuth Kit reads at once lies therein, whatever
block it begins with."""

QUESTION: Final = b"q"
"""To the worker: JSON."""
KNOWN: Final = b"k"
"""To the worker: :data:`OFFSET`, and bytes that it is going to want."""
THERE: Final = b"t"
"""To the worker: what of the volume it reads by itself; see :mod:`~imprint.filesystems.in_file`."""
BYTES: Final = b"b"
"""To the worker: what it wants to read."""
NOTHING: Final = 0xFFFFFFFF
"""In place of a length: they could not be read."""
