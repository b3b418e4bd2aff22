"""speed.svg: a step's time against weights and against tensors."""

import contenders
import matplotlib
import optimizers

matplotlib.use("svg")
import matplotlib.pyplot as plt

LINES = (
    optimizers.ADAM,
    optimizers.OURS,
    contenders.TF_ADAM,
    contenders.TORCH_ADAM,
    contenders.OPTAX_ADAM,
)
PANELS = (
    (
        "weights",
        "weights, in 34 tensors",
        ("0.1 M", "1 M", "5 M", "25 M", "100 M"),
    ),
    ("tensors", "small tensors", ("6 small", "60 small", "200 small")),
)
# Below so many weights, launching takes longer than moving them.
LAUNCHED = 4e6


def plot(record, path):
    """Draws the adaptive phase; without cases of a panel nothing."""
    if not all(record["steps"].keys() & cases for _, _, cases in PANELS):
        return
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, (of, label, cases) in zip(axes, PANELS, strict=True):
        found = [record["steps"][c] for c in cases if c in record["steps"]]
        for marker, name in zip("osD^v", LINES, strict=True):
            points = [
                (case[of], case["step_ms"][name]["median"])
                for case in found
                if name in case["step_ms"]
            ]
            axis.plot(*_columns(points), marker=marker, label=name)
        limits = [
            (case[of], case["limit_ms"])
            for case in found
            if case["weights"] > LAUNCHED
        ]
        axis.plot(*_columns(limits), "k--", label="memory limit")
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("milliseconds a step")
    axes[0].legend(fontsize=8)
    figure.suptitle("One adaptive update step in a tf.function, 2 CPU cores")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _columns(points):
    return list(zip(*points, strict=True)) or ([], [])
