"""Packages of disks: OVA appliances, read and written, and what Google Compute Engine imports."""
