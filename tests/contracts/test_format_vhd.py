"""VHD against the format contract: one class for each way of storing a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from imprint.core.contracts import Reference
from imprint.core.formats import CreateSpec, parse_options
from imprint.formats.vhd import FORMAT
from imprint.storage.memory import MemoryStorage
from imprint.testing.format_suite import FormatContract
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source


class TestDynamicVhd(FormatContract):
    format_name = "vhd"
    options: ClassVar = {"block_size": "4K"}


class TestVhdWithLargerBlocks(FormatContract):
    format_name = "vhd"
    options: ClassVar = {"block_size": "16K"}


class TestFixedVhd(FormatContract):
    format_name = "vhd"
    options: ClassVar = {"subformat": "fixed"}
    frees_zeros = False
    has_parents = False


class TestDifferencingVhd(FormatContract):
    """Over a parent of zeros, whose disk is longer than the image's."""

    format_name = "vhd"
    options: ClassVar = {"block_size": "8K"}
    frees_zeros = False
    has_parents = False  # has one already

    def spec(
        self, size: int, *, parent: Reference | None = None, source: Source | None = None
    ) -> CreateSpec:
        """Over the parent."""
        options = parse_options("vhd", FORMAT.options, self.options)
        below = FORMAT.open(_parent(), DictOpener())
        reference = Reference("parent.vhd", format="vhd")
        return CreateSpec(
            size, self.opener(), options, parent=parent or reference, parent_source=source or below
        )

    def opener(self) -> Opener:
        """Which finds it."""
        return DictOpener(files={"parent.vhd": _parent()})


def _parent() -> MemoryStorage:
    uuid = "8d9ac3f4-8d0e-4b8b-9a10-6a3b6f2f0c11"
    options = parse_options("vhd", FORMAT.options, {"block_size": "4K", "uuid": uuid})
    storage = MemoryStorage(name="parent.vhd")
    FORMAT.create(storage, CreateSpec(1 << 20, DictOpener(), options)).commit()
    return storage
