"""The benchmarks: every contender on the same work, round by round, in one run.

``python benchmarks/run.py [NAME ...]`` runs those that are named, or all, and prints what they find. Everything is a
ratio within one run, since machines are noisy. ``docs/benchmarks/`` has the method and the results; nothing but
``--write`` changes them.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from attrs import evolve
from suite.benchmarks import alone, calls, layers, many, pages, starting, transports, waiting
from suite.context import WITHOUT_SNIFFIO, Context
from suite.crew import Crew, ProcessDiedError, WorkFailedError, sharing
from suite.figures import Outcome
from suite.machine import surroundings
from suite.report import CannotWriteError, for_terminal, kept, write

BENCHMARKS: dict[str, Callable[[Context], Outcome]] = {
    "pages": pages.pages,
    "transports": transports.transports,
    "latency": waiting.latency,
    "first": waiting.first,
    "collect": many.collect,
    "memory": many.memory,
    "growth": many.growth,
    "call": calls.call,
    "callers": calls.callers,
    "parts": alone.parts,
    "decode": alone.decode,
    "startup": starting.startup,
    "layers": layers.layers,
}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for on the command line; ends the program if that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(BENCHMARKS)}; all if left out")
    parser.add_argument("--small", action="store_true", help="only show that they work, in less than a minute")
    parser.add_argument("--rounds", type=int, help="how many rounds of each; what each thinks right if left out")
    parser.add_argument("--write", action="store_true", help="put what is found into docs/benchmarks/")
    options = parser.parse_args(given)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(map(repr, unknown))}; there are {', '.join(BENCHMARKS)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    if options.small and options.write:
        parser.error("--small measures nothing that is worth writing: leave --small or --write out")
    return options


def run(names: list[str], *, small: bool, rounds: int | None) -> dict[str, Outcome]:
    """Run some of them, and print what they find."""
    found = {}
    if find_spec("msgspec") is None:
        print("The extra `speed` is not installed, so what is said to have it has it not.", file=sys.stderr)
    if find_spec("sniffio") is None:
        print(WITHOUT_SNIFFIO, file=sys.stderr)
    if sharing():
        print(sharing(), file=sys.stderr)
    with Crew() as crew:
        for name in names:
            context, started = Context(name=name, crew=crew, small=small, rounds=rounds), time.monotonic()
            outcome = BENCHMARKS[name](context)
            # Goals are about the whole work.
            found[name] = evolve(outcome, goals=()) if small else outcome
            context.tell("done\n")
            print(for_terminal(name, found[name]), f"({time.monotonic() - started:.0f} s)", sep="\n", flush=True)
    return found


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which tidies up; a signal alone does not
    try:
        if options.write:
            kept()  # or it would be found out after all the work
        where = surroundings()  # of what is measured, not of what it has become meanwhile
        found = run(options.names or [*BENCHMARKS], small=options.small, rounds=options.rounds)
        if options.write:
            write(found, where, [*BENCHMARKS])
    except (CannotWriteError, ProcessDiedError, WorkFailedError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
