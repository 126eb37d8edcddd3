"""Rescue: what a failing medium still gives, the good first, and a map of how far that has come.

``states`` says of each byte what has been tried, ``mapfile`` keeps it as GNU ddrescue does,
``reading`` reads without ever being stuck, ``engine`` decides in which order.
"""
