"""README's table of speed.json: each figure beside the bound we set for it.

python benchmarks/speed_table.py
"""

import json
from pathlib import Path

RECORD = Path(__file__).with_name("speed.json")
OURS = "keras_hybrid"
TORCH, OPTAX = "torch, fused", "optax, jax.jit"


def rows(record):
    """Returns (what, ratio, bound) for every bound."""
    sizes, counts, callers = (record[g] for g in ("sizes", "counts", "callers"))

    def step(case, phase, name=OURS, group=sizes):
        return group[case][phase]["steps"][name]

    def ratio(case, phase, other, name=OURS):
        return (
            step(case, phase, name)["median_ms"]
            / step(case, phase, other)["median_ms"]
        )

    large = "25 M"
    adam, sgd, clip = "adaptive", "after the switch", "clipping and decay"
    for case, bound in (
        (large, 0.30),
        ("5 M", 0.40),
        ("1 M", 0.70),
        ("1 M in 8", 0.60),
    ):
        of = step(case, adam)["of_keras"]
        yield f"{case} weights, of keras Adam", of, bound
    for case in ("60 small", "ResNet-20"):
        of = step(case, adam, group=counts)["of_keras"]
        yield f"{case} tensors, of keras Adam", of, 0.60
    yield (
        "eager loop, 60 small tensors, of keras Adam",
        step("60 small, eager", adam, group=callers)["of_keras"],
        0.05,
    )
    for case in ("25 M, XLA", "1 M in 8, XLA"):
        of = step(case, adam, group=callers)["of_keras"]
        yield f"{case} around it, of keras Adam", of, 1.0
    yield (
        "1 M, during a blend, of keras Adam",
        step("1 M", "transition")["of_keras"],
        1.0,
    )
    yield (
        "25 M, clipping and decay, of keras AdamW",
        step(large, clip)["of_keras"],
        0.35,
    )
    yield (
        "25 M, after the switch, of keras SGD",
        step(large, sgd)["of_keras"],
        0.5,
    )
    yield (
        "25 M, after the switch, of the adaptive step",
        step(large, sgd)["median_ms"] / step(large, adam)["median_ms"],
        0.75,
    )
    for phase, bound in ((adam, 1.25), (sgd, 1.25), (clip, 1.5)):
        yield (
            f"25 M, {phase}, of the memory limit",
            step(large, phase)["of_limit"],
            bound,
        )
    for phase in (adam, sgd):
        yield (
            f"25 M, {phase}, of torch's fused kernel",
            ratio(large, phase, TORCH),
            1.25,
        )
    for phase in (adam, sgd):
        yield (
            f"25 M, {phase}, of optax under jax.jit",
            ratio(large, phase, OPTAX),
            1.0,
        )
    yield (
        "100 M, a weight's share of the time, of 25 M's",
        (
            step("100 M", adam)["median_ms"]
            / sizes["100 M"][adam]["weights"]
            / step(large, adam)["median_ms"]
            * sizes[large][adam]["weights"]
        ),
        1.1,
    )
    yield from _training(record)
    for size in ("25 M", "100 M", "ResNet50"):
        memory = record["memory"][f"{size}, {adam}"]
        yield (
            f"peak memory, {size}, of keras Adam",
            memory[OURS] / memory["keras Adam"],
            1.0,
        )


def _training(record):
    """The rows of whole models."""
    for model, times in record["first"].items():
        yield f"first step, {model}, of keras Adam", _of(times), 1.1
    for model in ("MLP 512-512", "CNN", "residual CNN"):
        for which, name, bound in (
            ("epoch_s", "an epoch", 1.0),
            ("first_epoch_s", "the first epoch", 1.1),
        ):
            times = record["epochs"][model][which]
            yield f"`fit`, {model}, {name}, of keras Adam", _of(times), bound
    for model, times in record["models"].items():
        yield f"`fit`, {model}, an epoch, of keras Adam", _of(times), 1.0
        decayed = _of(times, "keras AdamW", f"{OURS}, decay")
        yield f"`fit`, {model}, an epoch, of keras AdamW", decayed, 1.0
    adams, ours = record["sweep"]["keras Adam"], record["sweep"][OURS]
    for name, what in (
        ("seconds_a_model", "seconds"),
        ("bytes_a_model", "memory left"),
    ):
        ratio = ours[name] / adams[name]
        yield f"sweep of 40 models, {what} a model, of keras Adam", ratio, 1.1


def _of(times, other="keras Adam", own="keras_hybrid"):
    return times[own]["median"] / times[other]["median"]


def table():
    """Returns the table in Markdown."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    lines = ["| ratio | measured | bound | |", "| --- | --- | --- | --- |"]
    for what, ratio, bound in rows(record):
        met = "met" if round(ratio, 3) <= bound else "**not met**"
        lines.append(f"| {what} | {ratio:.3f} | {bound:g} | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
