"""Disks in an emulator: which machine fits one, and running it on a throw-away overlay."""
