"""Blobs by name: where a repository keeps its objects. One contract, a module for each place."""
