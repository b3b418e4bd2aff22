"""What does each published method do, from the first update to the last?

Draws every preset beside Adam and SGD: their paths on three functions of two
variables, and their losses on 5,000 images of MNIST, coloured by the weight of
SGD. It writes docs/all_methods_paths.svg and docs/all_methods_mnist5k.svg, and
prints a table.

For each problem two learning rates were chosen by hand, Adam's and that of SGD
with momentum 0.9, and a tolerance of SWATS at which it switches; everything
else follows from them and from the length of the training, in `methods`. (On
Rastrigin's noisy gradients SWATS found nothing that settles: it stays Adam.)
One seed: this shows how the methods behave, not which is better.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from keras_hybrid import HybridOptimizer, presets
from keras_hybrid.study import architectures, datasets
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import AtStep

DOCS = Path(__file__).parent.parent / "docs"
SEED = 0
MOMENTUM = 0.9
MARK = {
    "marker": "D",
    "markersize": 6,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "linestyle": "none",
    "zorder": 5,
}
START = {"marker": "o", "markersize": 5}
MINIMUM = {"marker": "*", "markersize": 10}
# Blue to vermilion, apart for the colour-blind and in grey.
WEIGHTS = LinearSegmentedColormap.from_list(
    "weights", ["#00509B", "#8C6BB1", "#E8590C"]
)
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "keras_hybrid",
    "font.size": 10,
    "axes.titlesize": 11,
}


def methods(
    adam_rate: float,
    sgd_rate: float,
    steps: int,
    swats: dict[str, float],
) -> dict[str, Callable[[], Any]]:
    """Every method, its arguments derived from the problem's numbers.

    Args:
        adam_rate: Adam's learning rate.
        sgd_rate: That of SGD with momentum 0.9, in Keras' convention.
        steps: Updates of the whole training.
        swats: Arguments of SWATS: its tolerance, and beta_2.
    """
    half = steps // 2
    # What multiplies the moving average m in the end.
    final = sgd_rate / (1 - MOMENTUM)
    return {
        "Adam": lambda: keras.optimizers.Adam(adam_rate),
        "SGD": lambda: keras.optimizers.SGD(sgd_rate, momentum=MOMENTUM),
        "SWATS": lambda: presets.SWATS(adam_rate, relative=True, **swats),
        "GNMT": lambda: presets.GNMT(
            adam_rate,
            switch_step=half,
            sgd_learning_rate=sgd_rate,
            decay_steps=[3 * steps // 4],
        ),
        # beta_2 = 0.99: rho averages over 100 updates, not 1,000.
        "Grafted": lambda: presets.Grafted(half, adam_rate, beta_2=0.99),
        "Hybrid + cool-down": lambda: HybridOptimizer(
            adam_rate,
            trigger=AtStep(half),
            cooldown=Cooldown(steps=steps - half),
        ),
        "RMSprop warm-up": lambda: presets.RMSpropWarmup(
            warmup_steps=3 * steps // 4,
            # Its momentum sums up 1 / (1 - 0.9) steps.
            learning_rate=adam_rate * (1 - MOMENTUM),
            sgd_learning_rate=sgd_rate,
        ),
        "AdaBound": lambda: presets.AdaBound(
            adam_rate, final_learning_rate=final, gamma=4 / steps
        ),
        "AMSBound": lambda: presets.AMSBound(
            learning_rate=adam_rate,
            final_learning_rate=final,
            gamma=4 / steps,
        ),
        "DSTAdam": lambda: presets.DSTAdam(
            steps, adam_rate, upper=final, lower=final / 10
        ),
        # Half of the way, in the exponent, between the two.
        "Padam": lambda: presets.Padam((adam_rate * final) ** 0.5),
        "MAS": lambda: presets.MAS(adam_rate, sgd_learning_rate=sgd_rate),
    }


def sgd_weight(optimizer: Any) -> float:
    """SGD's weight in the next update."""
    if isinstance(optimizer, HybridOptimizer):
        return optimizer.sgd_fraction
    return float(isinstance(optimizer, keras.optimizers.SGD))


# ---- Paths ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Problem:
    """A function of two variables, and how it is minimised and drawn.

    Attributes:
        name: Its name.
        function: Of tensors or arrays x and y.
        start: Where all methods start.
        minimum: Where the minimum is.
        window: The drawn limits of x and y.
        adam_rate: Adam's learning rate.
        sgd_rate: SGD's.
        steps: Updates.
        swats: SWATS' tolerance and beta_2.
        noise: Standard deviation of the noise on the gradient, the same
            noise for every method.
    """

    name: str
    function: Callable[[Any, Any], Any]
    start: tuple[float, float]
    minimum: tuple[float, float]
    window: tuple[tuple[float, float], tuple[float, float]]
    adam_rate: float
    sgd_rate: float
    steps: int
    swats: dict[str, float]
    noise: float = 0.0


def rosenbrock(x: Any, y: Any) -> Any:
    """A bent valley; the minimum is at (1, 1)."""
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def rastrigin(x: Any, y: Any) -> Any:
    """A bowl full of dents; the lowest is at (0, 0)."""
    cos = np.cos if isinstance(x, np.ndarray) else tf.cos
    waves = cos(2 * np.pi * x) + cos(2 * np.pi * y)
    return 20 + x**2 + y**2 - 10 * waves


def quadratic(x: Any, y: Any) -> Any:
    """A valley a hundred times as steep across as along."""
    return (x**2 + 100 * y**2) / 2


PROBLEMS = (
    Problem(
        "Rosenbrock",
        rosenbrock,
        (-1.2, 1.0),
        (1.0, 1.0),
        ((-1.7, 1.6), (-0.6, 2.0)),
        adam_rate=0.03,
        sgd_rate=4e-4,
        steps=500,
        swats={"tolerance": 0.01, "beta_2": 0.9},
    ),
    Problem(
        "Rastrigin, noisy gradients",
        rastrigin,
        (2.3, -1.7),
        (0.0, 0.0),
        ((-1.6, 3.0), (-2.8, 1.8)),
        adam_rate=0.2,
        sgd_rate=1e-3,
        steps=250,
        swats={"tolerance": 0.05, "beta_2": 0.99},
        noise=40.0,
    ),
    Problem(
        "Quadratic, 1 : 100",
        quadratic,
        (-4.0, 1.0),
        (0.0, 0.0),
        ((-4.6, 1.6), (-1.4, 1.4)),
        adam_rate=0.05,
        sgd_rate=5e-3,
        steps=200,
        swats={"tolerance": 2e-3, "beta_2": 0.99},
    ),
)


@dataclasses.dataclass(frozen=True)
class Path2D:
    """The points of one run and SGD's weight in the update from each."""

    points: np.ndarray
    weights: np.ndarray
    value: float


def follow(problem: Problem, optimizer: Any) -> Path2D:
    """Minimises the function from its start."""
    w = keras.Variable(problem.start)
    optimizer.build([w])

    draws = np.random.default_rng(SEED).normal(size=(problem.steps, 2))
    noise = tf.constant(problem.noise * draws, "float32")

    @tf.function
    def update(k: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            value = problem.function(w.value[0], w.value[1])
        optimizer.apply([tape.gradient(value, w.value) + noise[k]], [w])

    points, weights = [w.numpy()], []
    for k in range(problem.steps):
        weights.append(sgd_weight(optimizer))
        update(tf.constant(k))
        points.append(w.numpy())
    array = np.array(points, "float64")
    value = float(problem.function(array[-1:, 0], array[-1:, 1])[0])
    return Path2D(array, np.array(weights), value)


def passes_half(weights: np.ndarray) -> int | None:
    """The first update in which SGD prevails, None if none or the first."""
    prevails = np.flatnonzero(np.asarray(weights) > 0.5)
    return int(prevails[0]) if len(prevails) and prevails[0] > 0 else None


def add_coloured_line(
    axes: Any, points: np.ndarray, weights: np.ndarray, width: float
) -> None:
    """One polyline for every stretch of about the same weight."""
    levels = np.round(np.asarray(weights) * 15) / 15
    starts = [0, *(np.flatnonzero(np.diff(levels)) + 1), len(levels)]
    stretches = [
        points[a : b + 1] for a, b in zip(starts[:-1], starts[1:], strict=True)
    ]
    axes.add_collection(
        LineCollection(
            stretches,
            colors=[WEIGHTS(levels[a]) for a in starts[:-1]],
            linewidths=width,
            capstyle="round",
            zorder=3,
        )
    )


def draw_background(axes: Any, problem: Problem) -> None:
    """The function in steps of grey, on a logarithmic scale."""
    (left, right), (bottom, top) = problem.window
    x, y = np.meshgrid(
        np.linspace(left, right, 64), np.linspace(bottom, top, 64)
    )
    values = np.log10(problem.function(x, y) + 0.1)
    low, high = values.min(), values.max()
    steps = np.floor((values - low) / (high - low) * 7.999) / 8
    grey = (255 - 60 * steps).astype("uint8")
    axes.imshow(
        np.stack([grey] * 3, axis=-1),
        extent=(left, right, bottom, top),
        origin="lower",
        aspect="auto",
        interpolation="none",
    )
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])


def draw_paths(paths: dict[str, dict[str, Path2D]]) -> Figure:
    """Two blocks of six methods, three problems in each."""
    figure = Figure((12, 13.4), layout="constrained")
    names = list(next(iter(paths.values())))
    upper, lower, bottom = figure.subfigures(3, 1, height_ratios=(10, 10, 1))
    for block, chosen in ((upper, names[:6]), (lower, names[6:])):
        grid = block.subplots(3, 6)
        for row, problem in zip(grid, PROBLEMS, strict=True):
            row[0].set_ylabel(problem.name)
            for axes, name in zip(row, chosen, strict=True):
                draw_path(axes, problem, paths[problem.name][name])
        for axes, name in zip(grid[0], chosen, strict=True):
            axes.set_title(name, fontweight="bold")
    add_key(bottom, {"start": START, "minimum": MINIMUM})
    return figure


def draw_path(axes: Any, problem: Problem, path: Path2D) -> None:
    """One panel."""
    draw_background(axes, problem)
    add_coloured_line(axes, path.points, path.weights, 1.4)
    axes.plot(*problem.start, color="black", zorder=4, **START)
    axes.plot(*problem.minimum, color="black", zorder=4, **MINIMUM)
    half = passes_half(path.weights)
    if half is not None:
        axes.plot(*path.points[half], **MARK)
    axes.text(
        0.97,
        0.03,
        f"f = {path.value:.1e}"
        if path.value < 0.01
        else f"f = {path.value:.2f}",
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        zorder=6,
    )


def add_key(figure: Any, marks: dict[str, dict[str, Any]]) -> None:
    """The colours, and what the marks are."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), WEIGHTS),
        cax=figure.add_axes((0.06, 0.6, 0.3, 0.2)),
        orientation="horizontal",
        ticks=[0, 0.5, 1],
    )
    bar.ax.set_xticklabels(["0: adaptive", "SGD's weight", "1: SGD"])
    bar.solids.set_rasterized(True)
    handles = [
        Line2D([], [], linestyle="none", color="black", label=label, **look)
        for label, look in marks.items()
    ]
    handles.append(Line2D([], [], **MARK, label="SGD's weight passes one half"))
    figure.legend(
        handles=handles,
        loc="center",
        bbox_to_anchor=(0.68, 0.6),
        ncols=3,
        frameon=False,
    )


# ---- MNIST ------------------------------------------------------------------

EPOCHS = 6
BATCH = 64
MNIST: dict[str, Any] = {
    "adam_rate": 1e-3,
    "sgd_rate": 0.02,
    "swats": {"tolerance": 5e-3, "beta_2": 0.99},
}


@dataclasses.dataclass(frozen=True)
class Curves:
    """One run.

    Attributes:
        loss: Training loss in each epoch.
        val_loss: Validation loss before the first epoch and after each.
        val_accuracy: Validation accuracy at the end.
        weights: SGD's weight in each update.
    """

    loss: list[float]
    val_loss: list[float]
    val_accuracy: float
    weights: np.ndarray


class Weights(keras.callbacks.Callback):
    """Notes SGD's weight before each update."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew."""
        self.weights: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notes the weight."""
        self.weights.append(sgd_weight(self.model.optimizer))


def train(data: Any, make: Callable[[], Any]) -> Curves:
    """Trains the MLP."""
    keras.utils.set_random_seed(SEED)
    model = architectures.build("mlp", data.image_shape, data.classes)
    model.compile(
        make(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    images, steps = datasets.training_pipeline(data, BATCH, SEED, 0, EPOCHS)
    validation = datasets.evaluation_pipeline(data, "validation")
    before = model.evaluate(validation, verbose=0)[0]
    weights = Weights()
    history = model.fit(
        images,
        epochs=EPOCHS,
        steps_per_epoch=steps,
        validation_data=validation,
        callbacks=[weights],
        shuffle=False,
        verbose=0,
    ).history
    return Curves(
        history["loss"],
        [before, *history["val_loss"]],
        history["val_accuracy"][-1],
        np.array(weights.weights),
    )


def draw_curves(curves: dict[str, Curves]) -> Figure:
    """One panel a method, all others' validation losses in grey behind."""
    figure = Figure((12, 9.6), layout="constrained")
    upper, bottom = figure.subfigures(2, 1, height_ratios=(10, 1))
    grid = upper.subplots(3, 4, sharex=True, sharey=True)
    ends = np.arange(EPOCHS + 1)
    for axes, (name, run) in zip(grid.flat, curves.items(), strict=True):
        for other in curves.values():
            axes.plot(ends, other.val_loss, color="#D0D0D0", linewidth=1)
        per_epoch = len(run.weights) // EPOCHS
        # The stretch that ends at epoch e has the weight of that epoch.
        means = run.weights.reshape(EPOCHS, per_epoch).mean(axis=1)
        points = np.stack([ends[1:], run.loss], axis=1)
        add_coloured_line(axes, points, means[1:], 1.2)
        points = np.stack([ends, run.val_loss], axis=1)
        add_coloured_line(axes, points, means, 2.8)
        half = passes_half(run.weights)
        if half is not None:
            at = half / per_epoch
            axes.plot(
                at, np.exp(np.interp(at, ends, np.log(run.val_loss))), **MARK
            )
        axes.set_title(name, fontweight="bold")
        axes.text(
            0.03,
            0.04,
            f"validation accuracy {100 * run.val_accuracy:.1f} %",
            transform=axes.transAxes,
        )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 1]))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
    first = next(iter(curves.values()))
    for label, height in (
        ("validation loss", first.val_loss[4] * 1.25),
        ("training loss", first.loss[3] * 1.1),
    ):
        grid[0, 0].text(4.1, height, label, color=WEIGHTS(0.0), fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    for axes in grid[:, 0]:
        axes.set_ylabel("cross-entropy")
    add_key(bottom, {})
    return figure


# ---- Output -----------------------------------------------------------------


def save(figure: Figure, path: Path) -> None:
    """Writes an SVG, coordinates to a hundredth of a point."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(path, metadata=nothing)
    text = path.read_text()
    text = re.sub(
        r' d="[^"]*"',
        lambda d: re.sub(r"(\.\d\d)\d+", r"\1", d[0]),
        text,
    )
    path.write_text(text)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


@matplotlib.rc_context(SETTINGS)
def main() -> None:
    """Runs everything."""
    began = time.perf_counter()
    DOCS.mkdir(exist_ok=True)
    paths = {
        problem.name: {
            name: follow(problem, make())
            for name, make in methods(
                problem.adam_rate,
                problem.sgd_rate,
                problem.steps,
                problem.swats,
            ).items()
        }
        for problem in PROBLEMS
    }
    save(draw_paths(paths), DOCS / "all_methods_paths.svg")
    print(f"{time.perf_counter() - began:.0f} s")
    data = datasets.load("mnist-5k")
    steps = EPOCHS * (data.sizes["train"] // BATCH)
    curves = {
        name: train(data, make)
        for name, make in methods(steps=steps, **MNIST).items()
    }
    save(draw_curves(curves), DOCS / "all_methods_mnist5k.svg")
    print(f"\n{'final value':20}", end="")
    print("".join(f"{p.name.split(',')[0]:>12}" for p in PROBLEMS), end="")
    print(f"{'MNIST val. loss':>18}{'accuracy':>10}{'half at':>9}")
    for name, run in curves.items():
        values = [paths[p.name][name].value for p in PROBLEMS]
        print(f"{name:20}" + "".join(f"{v:12.2e}" for v in values), end="")
        half = passes_half(run.weights)
        print(f"{run.val_loss[-1]:18.4f}{run.val_accuracy:10.3f}", end="")
        print(f"{'-' if half is None else half:>9}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
