"""A disk and its files as a file system of the kernel's, by FUSE.

:class:`~imprint.exports.fuse.view.View` is what is shown, and knows nothing of FUSE;
:mod:`~imprint.exports.fuse.driver` answers libfuse; :mod:`~imprint.exports.fuse.session` mounts.
"""
