"""Who is measured: one module for each, written as its own users would write it at its best.

Each has a class ``Contender``, whose coroutines are the pieces of work that ``worker`` is asked for by name.
"""
