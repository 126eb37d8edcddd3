"""What a test of a plug-in needs; shipped, so that authors of formats and storages can use it.

* :mod:`~imprint.testing.storage_suite` and :mod:`~imprint.testing.format_suite`: what every
  storage and every format must obey, as classes to inherit from. Only these import pytest
  and hypothesis.
* :mod:`~imprint.testing.faults`: storages that record, fail and count.
* :mod:`~imprint.testing.disks`: random disks.
* :mod:`~imprint.testing.fuzzing`: every parser, given wrong bytes.
* :mod:`~imprint.testing.opener`: the gate to parents, without a file system.
* :mod:`~imprint.testing.oracles`: qemu-img and qemu-io as judges.
"""
