"""For the tests of those who use this package: faults that really happen, a clock nobody waits for.

See ``docs/testing.md``.
"""
