"""``python -m nudgescribe_async.contract [--check]``: generate, or say what would change."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nudgescribe_async.contract.blocking_stub import blocking_stub
from nudgescribe_async.contract.check import ContractError
from nudgescribe_async.contract.generate import generate


def main() -> int:
    """Write the generated files, or with ``--check`` only compare; 1 if they differ."""
    parser = argparse.ArgumentParser(prog="python -m nudgescribe_async.contract", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if generating would")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout (default: the current folder)")
    options = parser.parse_args()
    try:
        files = generate(options.root)
        files |= blocking_stub(options.root, files)
    except ContractError as error:
        sys.stderr.write(f"The contract cannot be used, and nothing was written:\n{error}\n")
        return 1
    stale = [
        (path, text) for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        sys.stdout.write(f"{'differs' if options.check else 'written'}: {path.relative_to(options.root)}\n")
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if not stale:
        sys.stdout.write("Everything is up to date.\n")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
