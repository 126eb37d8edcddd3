"""All that is on a disk, in one pass: DFXML with hashes, timelines, a page to look through."""
