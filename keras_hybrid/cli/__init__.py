"""The command line: keras-hybrid compare | tune | study | report | pack."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from keras_hybrid.cli import compare, pack, report, study, tune

# In the order of the help.
COMMANDS = (compare, tune, study, report, pack)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-hybrid",
        description="Train with Adam first and SGD after, and compare.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal or a pipe lacks a letter for ends no training.
            stream.reconfigure(errors="replace")
    try:
        options.run(options, given)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"keras-hybrid: {error}\n")
        return 2
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"keras-hybrid: {error}: pip install 'keras-hybrid[all]'\n"
        )
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nkeras-hybrid: interrupted; the same command goes on from here\n"
        )
        return 130
    return 0
