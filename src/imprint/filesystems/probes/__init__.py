"""One function for each kind of file system: it is this kind, with label and UUID, or not."""
