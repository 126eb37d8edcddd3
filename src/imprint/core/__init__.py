"""Contracts, and what follows from them for every format: no third-party package is used here."""
