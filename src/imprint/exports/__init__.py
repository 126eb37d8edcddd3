"""Disks and their files as others can use them in place: by FUSE, by NBD."""
