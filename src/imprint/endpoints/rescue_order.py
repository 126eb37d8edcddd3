"""What of a dying disk is worth most: tables and metadata, then what files use, then the rest."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from imprint.core.errors import FormatError, PassphraseError, ReadError
from imprint.core.events import ignore
from imprint.endpoints.survey import describe
from imprint.endpoints.used import Policy, VolumeTree, disk_use
from imprint.filesystems.allocation import Walking
from imprint.filesystems.table import allocator
from imprint.transfer.rescue.on_demand import OnDemand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.endpoints.open import Access
    from imprint.transfer.rescue.engine import Engine
    from imprint.transfer.rescue.sink import TargetSink


def by_value(medium: Source, engine: Engine, sink: TargetSink, access: Access) -> Sequence[Runs]:
    """Read the metadata of a medium, and say what is to be read then.

    Nobody has to know what metadata is: the file systems are asked what they use, and walked, and
    what that reads is rescued on the way, once.
    """
    engine.enter("metadata", "?", 1)
    view = OnDemand(medium, engine, sink)
    passphrase = access.gate().passphrase
    try:
        used = disk_use(view, Policy(force=True), passphrase=passphrase)
        tree = VolumeTree(view, describe(view), passphrase, ignore)
        for volume in tree.volumes():
            file_system = None if volume.kind is None else allocator(volume.kind)
            if isinstance(file_system, Walking):
                with contextlib.suppress(FormatError, ReadError):
                    for _ in file_system.reached(volume.source):
                        pass
    except (FormatError, ReadError, PassphraseError):
        return ()
    return (used,)
