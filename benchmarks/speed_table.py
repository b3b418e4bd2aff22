"""README's table of speed.json: each figure beside the bound we set for it.

python benchmarks/speed_table.py

A case that was not measured has no row.
"""

import json
from pathlib import Path

RECORD = Path(__file__).with_name("speed.json")
OURS, ADAM, ADAMW = "keras_hybrid", "keras Adam", "keras AdamW"
ADAPTIVE, SWITCHED = "adaptive", "after the switch"
CLIPPED = "clipping and decay"


def _found(record, *path):
    """What lies at a path of keys, or None."""
    for key in path:
        if not isinstance(record, dict) or key not in record:
            return None
        record = record[key]
    return record


def _over(one, other):
    return None if one is None or other is None else one / other


def rows(record):
    """Yields (what, ratio, bound); the ratio is None where not measured."""
    yield from _steps(record)
    yield from _training(record)
    for size in ("25 M", "100 M", "ResNet50"):
        memory = _found(record, "memory", f"{size}, {ADAPTIVE}")
        ratio = _over(_found(memory, OURS), _found(memory, ADAM))
        yield f"peak memory, {size}, of keras Adam", ratio, 1.0


def _steps(record):
    """The rows of single update steps."""

    def step(group, case, phase, what="of_keras", name=OURS):
        return _found(record, group, case, phase, "steps", name, what)

    for group, case, bound in (
        ("sizes", "25 M", 0.30),
        ("sizes", "5 M", 0.40),
        ("sizes", "1 M", 0.70),
        ("sizes", "1 M in 8", 0.60),
        ("counts", "60 small", 0.60),
        ("counts", "ResNet-20", 0.60),
        ("callers", "60 small, eager", 0.05),
        ("callers", "25 M, XLA", 1.0),
        ("callers", "1 M in 8, XLA", 1.0),
    ):
        ratio = step(group, case, ADAPTIVE)
        yield f"step, {case}, of keras Adam", ratio, bound
    for phase, other, bound in (
        ("transition", "keras Adam, 1 M", 1.0),
        (CLIPPED, "keras AdamW, 25 M", 0.35),
        (SWITCHED, "keras SGD, 25 M", 0.5),
    ):
        of, case = other.split(", ")
        ratio = step("sizes", case, phase)
        yield f"step, {case}, {phase}, of {of}", ratio, bound

    def milliseconds(phase, name=OURS, case="25 M"):
        return step("sizes", case, phase, "median_ms", name)

    yield (
        "step, 25 M, after the switch, of the adaptive step",
        _over(milliseconds(SWITCHED), milliseconds(ADAPTIVE)),
        0.75,
    )
    for phase, bound in ((ADAPTIVE, 1.25), (SWITCHED, 1.25), (CLIPPED, 1.5)):
        ratio = step("sizes", "25 M", phase, "of_limit")
        yield f"step, 25 M, {phase}, of the memory limit", ratio, bound
    for name, bound in (("torch, fused", 1.25), ("optax, jax.jit", 1.0)):
        for phase in (ADAPTIVE, SWITCHED):
            ratio = _over(milliseconds(phase), milliseconds(phase, name))
            yield f"step, 25 M, {phase}, of {name}", ratio, bound


def _training(record):
    """The rows of whole models."""

    def of(times, other=ADAM, own=OURS):
        return _over(
            _found(times, own, "median"), _found(times, other, "median")
        )

    for model, times in record.get("first", {}).items():
        yield f"first step of {model}, of keras Adam", of(times), 1.1
    for model, parts in record.get("epochs", {}).items():
        for which, name, bound in (
            ("epoch_s", "an epoch", 1.0),
            ("first_epoch_s", "the first epoch", 1.1),
        ):
            ratio = of(parts[which])
            yield f"`fit`, {model}, {name}, of keras Adam", ratio, bound
    for model, times in record.get("models", {}).items():
        yield f"`fit`, {model}, an epoch, of keras Adam", of(times), 1.0
        decayed = of(times, ADAMW, f"{OURS}, decay")
        yield f"`fit`, {model}, an epoch, of keras AdamW", decayed, 1.0
    for name, what in (
        ("seconds_a_model", "seconds"),
        ("bytes_a_model", "memory left"),
    ):
        own, other = (
            _found(record, "sweep", kind, name) for kind in (OURS, ADAM)
        )
        what = f"sweep of 40 models, {what} a model, of keras Adam"
        yield what, _over(own, other), 1.1


def table():
    """Returns the table in Markdown."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    lines = ["| ratio | measured | bound | |", "| --- | --- | --- | --- |"]
    for what, ratio, bound in rows(record):
        if ratio is None:
            continue
        met = "met" if round(ratio, 3) <= bound else "**not met**"
        lines.append(f"| {what} | {ratio:.3f} | {bound:g} | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
