"""The site's table of speed.json: each ratio beside the bar we set for it.

python benchmarks/speed_table.py
"""

import json
from pathlib import Path

# It stands alone: a test runs it, without this folder among its modules.
RECORD = Path(__file__).with_name("speed.json")
ADAM, ADAMW, SGD = "keras Adam", "keras AdamW", "keras SGD"
OURS, DECAY = "keras_hybrid", "keras_hybrid, decay"
PROJECTION = "keras_hybrid, projection"
BLENDING = "keras_hybrid, during a blend"
SWITCHED = "keras_hybrid, after the switch"
CLIPPING = "keras_hybrid, decay, clipping"
ADAMW_CLIPPING = "keras AdamW, clipping"


def of(group, case, quantity, ours=OURS, other=ADAM):
    """Our part of another's median."""

    def ratio(record):
        found = record[group][case][quantity]
        return found[ours]["median"] / found[other]["median"]

    return ratio


def step(case, ours=OURS, other=ADAM):
    """The time of a step."""
    return of("steps", case, "step_ms", ours, other)


def of_limit(case, ours=OURS):
    """The time of a step, of the memory limit."""

    def ratio(record):
        found = record["steps"][case]
        return found["step_ms"][ours]["median"] / found["limit_ms"]

    return ratio


def share(case, other):
    """A weight's share of a step, of that in another case."""

    def ratio(record):
        cases = [record["steps"][name] for name in (case, other)]
        shares = [c["step_ms"][OURS]["median"] / c["weights"] for c in cases]
        return shares[0] / shares[1]

    return ratio


def rows():
    """Yields what is measured, the ratio of a record, and the bar."""
    for case, what, bar in (
        ("25 M", "25 M weights in 34 tensors", 0.3),
        ("5 M", "5 M in 34", 0.4),
        ("1 M", "1 M in 34", 0.7),
        ("1 M in 8", "1 M in 8 (an MLP)", 0.6),
        ("60 small", "60 small tensors of three shapes", 0.6),
        ("ResNet-20", "the 59 variables of a ResNet-20", 0.6),
        ("60 small, eager", "60 small tensors in an eager loop", 0.05),
        ("25 M, XLA", "25 M inside `jit_compile=True`", 1),
        ("1 M in 8, XLA", "1 M in 8 inside `jit_compile=True`", 1),
    ):
        yield f"step, {what}, of keras Adam", step(case), bar
    yield (
        "step, 1 M in 34 during a blend, of keras Adam",
        step("1 M, during a blend", BLENDING),
        1,
    )
    switched, clipping = "25 M, after the switch", "25 M, clipping and decay"
    for other, name, bar in (
        (OURS, "the own adaptive step", 0.75),
        (SGD, "keras SGD", 0.5),
        ("torch, fused SGD", "torch's fused SGD", 1.25),
        ("optax sgd, jax.jit", "optax's sgd under jax.jit", 1),
    ):
        ratio = step(switched, SWITCHED, other)
        yield f"step, {switched}, of {name}", ratio, bar
    for other, name, bar in (
        ("torch, fused Adam", "torch's fused Adam", 1.25),
        ("optax adam, jax.jit", "optax's adam under jax.jit", 1),
    ):
        yield f"step, 25 M, of {name}", step("25 M", other=other), bar
    yield (
        f"step, {clipping}, of keras AdamW's",
        step(clipping, CLIPPING, ADAMW_CLIPPING),
        0.35,
    )
    for case, ours, bar in (
        ("25 M", OURS, 1.25),
        (switched, SWITCHED, 1.25),
        (clipping, CLIPPING, 1.5),
    ):
        yield f"step, {case}, of the memory limit", of_limit(case, ours), bar
    yield (
        '25 M with `sgd_scale="projection"`, of the default',
        step("25 M", PROJECTION, OURS),
        1.15,
    )
    yield (
        "a weight's share of a step, 100 M, of 25 M's",
        share("100 M", "25 M"),
        1.1,
    )
    for case, what in (
        ("25 M", "25 M in 34"),
        ("ResNet50", "the variables of ResNet50"),
    ):
        ratio = of("memory", case, "peak_bytes_a_weight")
        yield f"peak memory, {what}, of keras Adam", ratio, 1
    for case in ("ResNet50", "MobileNetV2", "transformer encoder"):
        ratio = of("first_steps", case, "first_step_s")
        yield f"first step of {case}, of keras Adam", ratio, 1.1
    for case in ("MLP 512-512", "residual CNN"):
        ratio = of("fits", case, "first_epoch_s")
        yield f"`fit`, first epoch, {case}, of keras Adam", ratio, 1.1
    for quantity, what in (
        ("model_s", "seconds a model"),
        ("left_mb_a_model", "memory left by a model"),
    ):
        ratio = of("sweeps", "40 models", quantity)
        yield f"40 models in a process, {what}, of keras Adam", ratio, 1.1
    for case in ("MLP 512-512", "residual CNN"):
        ratio = of("fits", case, "epoch_s")
        yield f"`fit`, an epoch, {case}, of keras Adam", ratio, 1
    for case in (
        "ResNet50",
        "MobileNetV2",
        "transformer encoder",
        "two towers",
    ):
        for ours, other in ((OURS, ADAM), (DECAY, ADAMW)):
            ratio = of("fits", case, "epoch_s", ours, other)
            decay = ", with decay" if ours == DECAY else ""
            yield f"`fit`, an epoch, {case}{decay}, of {other}", ratio, 1


def table(path=RECORD):
    """Returns the table in Markdown."""
    record = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| ratio | measured | bar | |", "| --- | --- | --- | --- |"]
    for what, ratio_of, bar in rows():
        try:
            ratio = ratio_of(record)
        except KeyError:  # A library or a group was left out.
            measured, met = "–", "not measured"
        else:
            measured = f"{ratio:.3f}"
            met = "met" if round(ratio, 3) <= bar else "**not met**"
        lines.append(f"| {what} | {measured} | {bar:g} | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
