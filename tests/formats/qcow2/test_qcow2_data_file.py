"""New images with an external data file."""

from __future__ import annotations

from imprint import formats
from imprint.core.contracts import Resumable
from imprint.core.formats import CreateSpec, parse_options
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

MIB = 1 << 20


def test_no_checkpoints_are_offered_that_could_not_be_taken_up() -> None:
    """Fails if an interrupted copy is kept, and the user told that the same command goes on."""
    qcow2 = formats.get("qcow2")
    data = MemoryStorage(name="x.data")
    options = parse_options("qcow2", qcow2.options, {"data_file": "x.data"})
    opener = DictOpener(files={"x.data": data})
    target = qcow2.create(MemoryStorage(name="x.qcow2"), CreateSpec(MIB, opener, options))
    assert not isinstance(target, Resumable)
    target.write(memoryview(b"\7" * MIB), 0)
    target.commit()
    assert bytes(data.content) == b"\7" * MIB
