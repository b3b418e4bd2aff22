"""Seconds and bytes of this process, and turns, in which all is measured."""

import statistics
import time


def seconds_of(call):
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def seconds_of_one(call, seconds):
    """The median of single calls, some `seconds` of them, three at least."""
    durations = []
    while len(durations) < 3 or sum(durations) < seconds:
        durations.append(seconds_of(call))
    return statistics.median(durations)


def resident_bytes():
    """The memory that this process holds (Linux)."""
    return _bytes("VmRSS:")


def peak_bytes():
    """The most memory that this process has held (Linux).

    `getrusage` would begin at what the parent process held.
    """
    return _bytes("VmHWM:")


def _bytes(field):
    with open("/proc/self/status", encoding="ascii") as lines:
        found = next(line for line in lines if line.startswith(field))
    return 1024 * int(found.split()[1])


def in_turns(measures, rounds):
    """Calls every measure once a round; returns by name what they gave."""
    found = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def spreads(found):
    """Median and range of what each name has."""
    return {
        name: {
            "median": statistics.median(values),
            "range": [min(values), max(values)],
        }
        for name, values in found.items()
    }
