"""Moving disks: one copy from any source to any target, and what is the same loop without one.

:mod:`~imprint.transfer.copy` is the engine; acquire, convert, back up and restore are calls
of it with different ends. Nothing here knows a format or a file.
"""
