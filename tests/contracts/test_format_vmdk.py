"""VMDK against the format contract: the variants that are one file."""

from __future__ import annotations

from typing import ClassVar

import pytest

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.units import KIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.format_faults import FaultContract, HostileContract
from imprint.testing.format_reading import ReadingContract
from imprint.testing.format_suite import FormatContract
from imprint.testing.format_writing import WritingContract


class TestVmdk(FormatContract):
    format_name = "vmdk"
    options: ClassVar = {"grain_size": "4K"}


class TestVmdkWithZeroedGrains(FormatContract):
    format_name = "vmdk"
    options: ClassVar = {"grain_size": "8K", "zeroed_grain": "on"}


class TestVmdkThatOutgrowsItsTables(WritingContract, FaultContract):
    format_name = "vmdk"
    options: ClassVar = {"grain_size": "4K"}
    disk_size = 2040 * KIB + 512  # a table is for 2 MiB


class TestVmdkStream(ReadingContract, WritingContract, HostileContract):
    format_name = "vmdk"
    options: ClassVar = {"grain_size": "4K", "subformat": "streamOptimized"}
    grows = False
    has_parents = False

    def test_editing_keeps_what_it_does_not_touch(self) -> None:
        """Fails if a compressed image is opened for writing."""
        with pytest.raises(UnsupportedFeatureError):
            self.edit(MemoryStorage(self.build(bytes(self.disk_size))))

    def test_it_can_be_resumed_at_a_checkpoint(self) -> None:
        """Fails if it is taken up, though nothing says where it ended."""
        content = MemoryStorage(self.build(bytes(self.disk_size)))
        with pytest.raises(UnsupportedFeatureError):
            self.format.resume(content, self.spec(self.disk_size))  # type: ignore[attr-defined]
