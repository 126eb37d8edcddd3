"""Disks as exports of a Network Block Device server."""
