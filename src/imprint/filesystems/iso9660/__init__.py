"""ISO 9660: names and contents, with Rock Ridge or Joliet where a disc has them."""
