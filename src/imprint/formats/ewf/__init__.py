"""Expert Witness (EWF): the evidence files of EnCase, FTK Imager, SMART and others.

Each format is a module with its ``FORMAT``: :mod:`~imprint.formats.ewf.e01`,
:mod:`~imprint.formats.ewf.s01`, :mod:`~imprint.formats.ewf.ex01`.
"""
