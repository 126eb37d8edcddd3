"""SquashFS 4: names and contents, whichever way they are compressed."""
