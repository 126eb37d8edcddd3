"""Fuzzing: every parser is given wrong bytes, and has to give a result or one ImagingError.

A :class:`~imprint.testing.fuzzing.target.Target` is one parser: seeds (sound input), steps
(what is done with an input) and what is known of its layout. :mod:`.table` lists them all.
``tests/fuzz/run.py`` runs one for minutes; ``tests/fuzz/test_fuzz_targets.py`` runs each for a
second, always on the same inputs.

**Adding a parser.** Write a function that takes the input's bytes and uses the parser as its
callers do, and a line in one of the modules that :mod:`.table` joins::

    Target(
        "ext4",
        seeds=lambda: [...],            # sound input; as small as can be
        steps=(read_ext4,),             # raises ImagingError, or nothing
        places=(Place(SuperBlock, 1024), Place(GroupDescriptor, 4096)),
        seal=put_checksums,             # so that changed structures are believed
    )

* A step must bound what it asks for (:func:`itertools.islice`, reads of some KiB), since a
  hostile image may have a size of 1 EiB. What has to be bounded by the parser is not bounded
  by the step.
* ``places`` name declared structures, at an offset (negative: from the end) or wherever a
  mark stands; their fields are set to the values that break arithmetic.
* Seeds made by other tools are kept below ``tests/fuzz/corpus/NAME``, in the form of
  :mod:`.sparse`; so is every input that has once failed. All of them are replayed, and
  changed further. :func:`.sparse.keep_read` cuts a large seed down to what a parser reads.

**How inputs are made.** An input is a short program that :mod:`.mutate` carries out on a
seed: set a field, flip a bit, cut off. A coverage-guided fuzzer grows programs, and without
one they are random: both reach the same places.
"""
