"""gpu.json as Markdown: python benchmarks/gpu_table.py."""

import json
import statistics
import sys
from pathlib import Path

ADAM = "keras Adam"
# Ours, and of which.
COLUMNS = {
    "before the switch, of Adam": ("keras_hybrid", ADAM),
    "with decay, of AdamW": ("keras_hybrid, decay", "keras AdamW"),
    "in a blend, of Adam": ("keras_hybrid, during a blend", ADAM),
    "after the switch, of Adam": ("keras_hybrid, after the switch", ADAM),
    "of SGD": ("keras_hybrid, after the switch", "keras SGD"),
}
QUANTITIES = {
    "step_ms": ("a step", "ms"),
    "first_epoch_s": ("first epoch of `fit`", "s"),
    "epoch_s": ("epoch of `fit`", "s"),
}


def table(record):
    """All that a record has."""
    lines = []
    for backend, parts in record.items():
        for part, found in parts.items():
            lines += [_title(backend, part, found), ""]
            if part == "cifar10":
                lines += _arms(found["results"])
            else:
                lines += _ratios(found["results"])
                lines += _peaks(found["results"])
            lines.append("")
    return "\n".join(lines)


def _title(backend, part, found):
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    trial = " (a trial, in a small form)" if found["quick"] else ""
    return (
        f"**{part} on {backend}**: {found['device']}; {versions}; "
        f"{found['seconds']:.0f} s{trial}"
    )


def _ratios(results):
    kept = [
        column
        for column, (ours, _) in COLUMNS.items()
        if any(
            ours in case[q]
            for case in results.values()
            for q in case
            if q in QUANTITIES
        )
    ]
    yield f"| what | keras Adam | {' | '.join(kept)} |"
    yield "| --- " * (2 + len(kept)) + "|"
    for case, found in results.items():
        for quantity, (what, unit) in QUANTITIES.items():
            if quantity not in found:
                continue
            medians = {k: v["median"] for k, v in found[quantity].items()}
            pairs = [COLUMNS[column] for column in kept]
            ratios = [f"{medians[a] / medians[b]:.2f}" for a, b in pairs]
            yield (
                f"| {case}: {what} | {medians[ADAM]:.3f} {unit} | "
                f"{' | '.join(ratios)} |"
            )


def _peaks(results):
    for case, found in results.items():
        peaks = found.get("peak_bytes", {})
        if peaks.get(ADAM):
            yield ""
            yield (
                f"Peak memory, {case}: {peaks['keras_hybrid'] / 2**20:.0f} "
                f"MiB, with keras Adam {peaks[ADAM] / 2**20:.0f} MiB."
            )


def _arms(record):
    yield f"{record['epochs']} epochs."
    yield ""
    yield "| arm | rate | seeds | test accuracy, % | against the control |"
    yield "| --- | --- | --- | --- | --- |"
    runs = record["runs"]
    control = _of(runs, "control")
    runs = [run for run in runs if run["seed"] in control]
    for arm in dict.fromkeys(run["arm"] for run in runs):
        own = _of(runs, arm)
        values = list(own.values())
        rate = next(r["learning_rate"] for r in runs if r["arm"] == arm)
        differences = [own[seed] - control[seed] for seed in own]
        yield (
            f"| {arm} | {rate:g} | {len(own)} | "
            f"{statistics.mean(values):.2f} ({min(values):.2f} to "
            f"{max(values):.2f}) | {statistics.mean(differences):+.2f} "
            f"({min(differences):+.2f} to {max(differences):+.2f}) |"
        )


def _of(runs, arm):
    return {r["seed"]: r["accuracy"] for r in runs if r["arm"] == arm}


if __name__ == "__main__":
    given = sys.argv[1:] or [Path(__file__).with_name("gpu.json")]
    print(table(json.loads(Path(given[0]).read_text())))
