"""Plays the scripts with the transports of this package: ``python -m vastroute_testing.conformance [script ...]``."""

from __future__ import annotations

import sys

from .checking import check_transport
from .ours import our_transports


def main() -> int:
    """Print what came of it; 1 if a script failed."""
    passed = True
    for name, (make_client, harness) in our_transports().items():
        report = check_transport(make_client, harness, name=name, only=sys.argv[1:])
        sys.stdout.write(f"{report}\n\n")
        sys.stdout.flush()
        passed &= report.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
