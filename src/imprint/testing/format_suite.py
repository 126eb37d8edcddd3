"""What every format must obey.

Inherit, and say which format it is; the options make its units small, so that tests are quick
and borders frequent::

    class TestVdi(FormatContract):
        format_name = "vdi"
        options: ClassVar = {"block_size": "4K"}

What a format cannot do is skipped, by its ``support``. A format that cannot be written
overrides :meth:`~imprint.testing.format_case.FormatCase.build`.
"""

from __future__ import annotations

from imprint.testing.format_faults import FaultContract, HostileContract
from imprint.testing.format_reading import ReadingContract
from imprint.testing.format_writing import OverlayContract, WritingContract


class FormatContract(
    ReadingContract, WritingContract, OverlayContract, FaultContract, HostileContract
):
    """All parts; see :class:`~imprint.testing.format_case.FormatCase` for what can be set."""
