"""Volumes as the system's own mount would show them: what their journals have is on them.

A file system that was not unmounted has its newest changes in its journal only, and whoever mounts
it writes them back first. Here it is done in memory, by one literal table of what can do it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import FormatError, ReadError
from imprint.filesystems.tree import Remark, note_of

if TYPE_CHECKING:
    from types import ModuleType

    from imprint.core.contracts import Source

ADVICE: Final = "--replay-journal tells it"
"""What the remark of a file system ends with whose journal can be replayed."""

WITHOUT: Final = "without --replay-journal, files are told as they are on the disk"
"""The advice of errors: nothing keeps anybody from looking at the disk as it is."""

REPLAYERS: Final = {"ext3": "ext.recovery", "ext4": "ext.recovery", "xfs": "xfs.recovery"}
"""Module below ``imprint.filesystems`` by the kind that ``identify`` tells. Each has a
module-level ``recovered(volume)``, which gives a :class:`Recovered`."""

_LOGGING: Final = {"hfsplus": "hfsplus", "ntfs": "ntfs"}
"""The same of kinds whose journals are not replayed: each has ``has_log(volume)``."""

_LEFT_OUT: Final = "its journal cannot be replayed here: what is only in it is not told"


class Recovered(NamedTuple):
    """A volume after replaying.

    Attributes:
        volume: as it is then; itself, if there is nothing to be replayed.
        said: what is worth telling, one sentence each, without a full stop.
    """

    volume: Source
    said: tuple[str, ...] = ()


def replayed(kind: str, volume: Source) -> tuple[Source, list[Remark]]:
    """A volume as it is once its journal is replayed, and what is to be said of that.

    The volume stays its owner's, and has to outlive the other. Reads the journal, and keeps where
    copies of blocks lie in it, or some 100 MiB of changes where it has no whole blocks.

    Args:
        kind: of the file system, as ``identify`` tells it.
        volume: all of it.

    Raises:
        CorruptImageError: if the journal contradicts itself: the system would not mount it either.
        UnsupportedFeatureError: if it has what is not known, or is on another device.
        ReadError: if it cannot be read.
    """
    if kind in REPLAYERS:
        found: Recovered = _module(REPLAYERS[kind]).recovered(volume)
        return found.volume, [Remark(note_of("/", what)) for what in found.said]
    if kind in _LOGGING and _may_have_log(kind, volume):
        return volume, [Remark(note_of("/", _LEFT_OUT))]
    return volume, []


def _may_have_log(kind: str, volume: Source) -> bool:
    try:
        return bool(_module(_LOGGING[kind]).has_log(volume))
    except (FormatError, ReadError):
        return True  # what is wrong with it is told by whoever lists its files


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"imprint.filesystems.{name}")
