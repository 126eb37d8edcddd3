"""Wire protocols as data structures and small state machines; nothing here opens a socket."""
