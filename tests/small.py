"""What tests of several packages share: paths and messages."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def received(**arguments):
    """The end of every message: what was received."""
    return "Received: " + ", ".join(f"{k}={v!r}" for k, v in arguments.items())
