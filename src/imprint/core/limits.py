"""Bounds on what an image may make us do. Each says why it has its value.

Every size that is read from an image is checked against one of these, or against the
length of the file that it came from, before anything is allocated for it.
"""

from __future__ import annotations

from typing import Final

from imprint.core.units import GIB, KIB, MIB

SPAN_BYTES: Final = 1 * MIB
"""What a copy moves at a time: large enough that Python's cost per span (15 to 30 µs) vanishes."""

PROBE_BYTES: Final = 64 * KIB
"""What a probe may read at each end of a storage."""

CHAIN_DEPTH_MAX: Final = 64
"""Images in a backing chain. Real chains have below 30; more is a loop or an attack."""

TABLE_CACHE_BYTES: Final = 16 * MIB
"""Mapping tables that a layer keeps in memory: 128 GiB of disk at QCOW2's 64 KiB clusters."""

DIRTY_TABLE_BYTES_MAX: Final = 16 * MIB
"""Changed tables that a writable layer holds before it writes them back."""

DECODE_CACHE_BYTES: Final = 8 * MIB
"""Decoded units that an image keeps, so that small reads do not decode a cluster twice."""

DISK_SIZE_MAX: Final = 1 << 60
"""1 EiB. Offsets above do not fit into the kernel's signed 64 bits with room for arithmetic."""

NAME_BYTES_MAX: Final = 1023
"""Length of the name of a backing file (QCOW2's own limit, ample for every format)."""

KDF_ITERATIONS_MAX: Final = 50_000_000
"""PBKDF2 rounds that a header may demand: about 20 s; real ones stay below 10 million."""

KDF_MEMORY_BYTES_MAX: Final = 1 * GIB
"""What Argon2 may ask for: ``cryptsetup`` itself asks for no more unless told to."""

KDF_WORK_BYTES_MAX: Final = 64 * GIB
"""Memory times passes of Argon2: about 40 s; real headers were made to take two."""

LVM_METADATA_BYTES_MAX: Final = 4 * MIB
"""Texts of all physical volumes together: groups of some hundred volumes have below 1 MiB."""

VOLUME_PIECES_MAX: Final = 1 << 16
"""Runs that logical volumes may be scattered over: each costs about 200 bytes here."""
