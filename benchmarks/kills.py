"""Kills real trainings at random moments, and compares what they end with.

    python benchmarks/kills.py [--kills 20] [--only NAME ...] [--output FILE]

Each training runs in a process of its own (forked from one that has only
imported TensorFlow), is killed (SIGKILL) several times, started again each
time, and ends. Its weights, random generators, optimizer variables
and History must be, bit for bit, those of one that was never killed. The
moments are drawn uniformly over the time of the unkilled training, from the
start of `fit` on; some wait for the next write of a file, and kill inside it.
Writes benchmarks/kills.json.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_name("kills.json")
SEED = 0
EPOCHS, STEPS, BATCH = 14, 25, 16
# Nothing here takes a tenth of it.
LIMIT_SECONDS = 240


# ---- The training, in a process of its own ----------------------------------


def make(dropout: bool, **options: Any) -> Any:
    """A compiled model with batch normalization, as every start makes it."""
    import keras

    import keras_hybrid

    keras.utils.set_random_seed(SEED)
    model = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(128, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3 if dropout else 0.0),
            keras.layers.Dense(3),
        ]
    )
    model.compile(
        keras_hybrid.HybridOptimizer(
            2e-3,
            transition=keras_hybrid.transitions.Blend(75),
            cooldown=keras_hybrid.transitions.Cooldown(),
            **options,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def data() -> tuple[Any, Any]:
    """Three classes with noise, so that the validation loss has a plateau."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    x = generator.normal(size=(2 * STEPS * BATCH, 20)).astype("float32")
    scores = x[:, :3] * x[:, 3:6] + 0.3 * generator.normal(size=(len(x), 3))
    return x, scores.argmax(axis=1)


def projection() -> Any:
    """A step trigger that is on its way for some epochs."""
    from keras_hybrid.triggers import AtStep, ProjectionConverged

    converged = ProjectionConverged(tolerance=0.4, patience=10, min_steps=150)
    return converged | AtStep(9 * STEPS)


def switch() -> Any:
    """The callback with a plateau; at the latest after 9 epochs."""
    import keras_hybrid
    from keras_hybrid.triggers import AtEpoch, Plateau

    plateau = Plateau("val_loss", patience=3, min_delta=0.02)
    return keras_hybrid.SwitchCallback(plateau | AtEpoch(9), verbose=0)


def started(folder: Path) -> Any:
    """A callback that says when `fit` starts."""
    import keras

    return keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: (folder / "started").touch()
    )


def fit(model: Any, folder: Path, callbacks: list[Any], **kwargs: Any) -> Any:
    """Trains on the first half of the examples, validates on the second."""
    x, y = data()
    half = len(x) // 2
    inputs: dict[str, Any] = {"x": x[:half], "y": y[:half], "batch_size": BATCH}
    return model.fit(
        **{**inputs, **kwargs},
        validation_data=(x[half:], y[half:]),
        epochs=EPOCHS,
        callbacks=[*callbacks, started(folder)],
        verbose=0,
    )


def exact_backup(folder: Path, first: bool) -> tuple[Any, Any]:
    """ExactBackup, with dropout and an order drawn for each epoch."""
    import keras
    import tensorflow as tf

    import keras_hybrid
    from keras_hybrid import batches

    model = make(dropout=True)
    backup = keras_hybrid.ExactBackup(folder / "backup.npz")
    # Of the rate before, so that an epoch that begins twice shows.
    rate = keras.callbacks.LearningRateScheduler(lambda _, rate: 0.99 * rate)
    callbacks = [switch(), rate]
    x, y = data()
    ordered = batches.shuffled(
        len(x) // 2,
        BATCH,
        SEED,
        backup.next_epoch,
        EPOCHS,
        lambda chosen, epoch: (tf.gather(x, chosen), tf.gather(y, chosen)),
        drop_remainder=True,
    )
    history = fit(
        model,
        folder,
        [backup, *callbacks] if first else [*callbacks, backup],
        x=ordered,
        y=None,
        batch_size=None,
        steps_per_epoch=STEPS,
        shuffle=False,
    )
    return model, history


def keras_backup(folder: Path, first: bool) -> tuple[Any, Any]:
    """BackupAndRestore; without dropout, whose masks it does not restore."""
    import keras

    model = make(dropout=False)
    # It writes in place: of one copy a kill leaves a broken file.
    backup = keras.callbacks.BackupAndRestore(
        str(folder / "backup"), double_checkpoint=True
    )
    callbacks = [backup, switch()] if first else [switch(), backup]
    return model, fit(model, folder, callbacks)


def model_checkpoint(folder: Path, first: bool) -> tuple[Any, Any]:
    """A `.keras` file an epoch; goes on from the last one that can be read."""
    import keras

    import keras_hybrid

    assert keras_hybrid.HybridOptimizer  # noqa: S101 - registers the classes.
    epoch = 0
    for path in sorted(folder.glob("*.keras"), reverse=True):
        try:
            model = keras.saving.load_model(path)
        except Exception:  # noqa: BLE001 - killed inside the writing.
            continue
        epoch = int(path.stem)
        break
    if not epoch:
        model = make(dropout=False, trigger=projection())
    saved = keras.callbacks.ModelCheckpoint(str(folder / "{epoch:03d}.keras"))
    callbacks = [saved, watch()] if first else [watch(), saved]
    keras.utils.set_random_seed(SEED)
    return model, fit(model, folder, callbacks, initial_epoch=epoch)


def watch() -> Any:
    """A callback that leaves the decision to the step trigger."""
    import keras_hybrid

    return keras_hybrid.SwitchCallback(verbose=0)


def checkpoint_loop(folder: Path) -> tuple[Any, Any]:
    """tf.train.Checkpoint in a loop of one's own, every ten updates."""
    import tensorflow as tf

    model = make(dropout=True, trigger=projection())
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    optimizer.training_steps = EPOCHS * STEPS
    x, y = data()
    losses = tf.Variable(tf.zeros(EPOCHS * STEPS))
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(
            model=model,
            optimizer=optimizer,
            # It finds weights, but not the states of random generators.
            seeds=[v.value for v in model.variables if "seed" in v.path],
            losses=losses,
        ),
        str(folder / "checkpoints"),
        max_to_keep=2,
    )
    if manager.latest_checkpoint:
        manager.checkpoint.restore(
            manager.latest_checkpoint
        ).assert_existing_objects_matched()

    @tf.function
    def update(step: Any) -> Any:
        chosen = tf.random.stateless_uniform(
            (BATCH,), [SEED, step], 0, len(x) // 2, tf.int32
        )
        with tf.GradientTape() as tape:
            logits = model(tf.gather(x, chosen), training=True)
            loss = model.loss(tf.gather(y, chosen), logits)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    (folder / "started").touch()
    for step in range(int(optimizer.iterations), EPOCHS * STEPS):
        loss = update(tf.constant(step))
        losses.scatter_update(tf.IndexedSlices(loss, step))
        if (step + 1) % 10 == 0:
            manager.save()

    class History:
        epoch = list(range(EPOCHS * STEPS))
        history = {"loss": losses.numpy().tolist()}

    return model, History


TRAININGS: dict[str, Callable[[Path], tuple[Any, Any]]] = {
    "ExactBackup first": lambda folder: exact_backup(folder, True),
    "ExactBackup last": lambda folder: exact_backup(folder, False),
    "BackupAndRestore before SwitchCallback": (
        lambda folder: keras_backup(folder, True)
    ),
    "BackupAndRestore after SwitchCallback": (
        lambda folder: keras_backup(folder, False)
    ),
    "ModelCheckpoint": lambda folder: model_checkpoint(folder, True),
    "tf.train.Checkpoint": checkpoint_loop,
}
# Which file of a folder is there while something is written.
WRITING = {
    "ExactBackup first": "backup.npz.*.partial",
    "ExactBackup last": "backup.npz.*.partial",
    "tf.train.Checkpoint": "checkpoints/*_temp",
}
# Here every kill is inside a write; what happens is recorded, not promised.
INSIDE = "BackupAndRestore, inside its writes"
TRAININGS[INSIDE] = lambda folder: keras_backup(folder, False)


def write_begins(name: str, folder: Path) -> Callable[[], bool]:
    """Returns what says that a file is being written."""
    if name in WRITING:
        return lambda: any(folder.glob(WRITING[name]))
    path = folder / "backup" / "latest.weights.h5"

    def changed() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    before = changed()
    return lambda: changed() != before


def work(name: str, folder: Path) -> None:
    """Trains, or goes on, and writes what it ends with."""
    # If all else fails, no process outlives its limit.
    signal.alarm(LIMIT_SECONDS)
    import numpy as np

    model, history = TRAININGS[name](folder)
    variables = [*model.variables, *model.optimizer.variables]
    content = json.dumps(
        {
            "history": history.history,
            "epoch": history.epoch,
            "switch_step": model.optimizer.switch_step,
        }
    )
    np.savez(
        folder / "end.npz",
        content=np.array(content),
        **{f"{i}": v.numpy() for i, v in enumerate(variables)},
    )


# ---- The killer -------------------------------------------------------------


class Training:
    """A process that trains; it is gone when the block is left."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def __enter__(self) -> "Training":
        (self.folder / "started").unlink(missing_ok=True)
        self.errors = tempfile.TemporaryFile("w+")
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(self.errors.fileno(), 2)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                work(self.name, self.folder)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.errors.close()

    def alive(self) -> bool:
        """Whether it has not ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
        return self.status is None

    def kill(self) -> None:
        """Kills the process and all that it started."""
        if self.alive():
            os.killpg(self.pid, signal.SIGKILL)
            _, self.status = os.waitpid(self.pid, 0)

    def wait_for(self, condition: Callable[[], Any], pause: float) -> bool:
        """Waits; False if the process ended before."""
        end = time.monotonic() + LIMIT_SECONDS
        while not condition():
            if not self.alive():
                return False
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: waited {LIMIT_SECONDS} s")
            time.sleep(pause)
        return True

    def finish(self) -> str:
        """Lets it end; returns what it said of errors and warnings."""
        self.wait_for(lambda: False, 0.01)
        self.errors.seek(0)
        text = self.errors.read()
        if self.status:
            return text[-2000:]
        return "\n".join(x for x in text.splitlines() if "UserWarning" in x)

    def begins(self) -> bool:
        """Waits until `fit` starts; False if it does not."""
        return self.wait_for((self.folder / "started").exists, 0.005)


def end_of(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns the history and, to the last bit, all variables."""
    import numpy as np

    with np.load(folder / "end.npz") as file:
        content = json.loads(str(file["content"]))
        return content, {
            name: file[name].tobytes() for name in file if name != "content"
        }


def differences(folder: Path, expected: Path, whole: bool) -> list[str]:
    """Returns in what two ends differ, nothing if they are equal.

    Args:
        folder: Of the training that was killed.
        expected: Of the one that was not.
        whole: Whether the history must be of all epochs; otherwise of those
            since the last start, which is all that Keras keeps.
    """
    (content, arrays), (other, others) = end_of(folder), end_of(expected)
    found = [f"variable {i}" for i in others if arrays.get(i) != others[i]]
    if content["switch_step"] != other["switch_step"]:
        found.append(f"switch at {content['switch_step']}")
    epochs = content["epoch"]
    count = len(epochs)
    if (whole and count != len(other["epoch"])) or (
        count and epochs != other["epoch"][-count:]
    ):
        found.append(f"epochs {epochs}")
    for name, values in other["history"].items():
        tail = values[-count:] if count else []
        # NaN equals NaN.
        if repr(content["history"].get(name, [])) != repr(tail):
            found.append(f"history of {name}")
    return found


def unkilled(name: str, folder: Path) -> float:
    """Trains without a kill; returns the seconds since `fit` started."""
    with Training(name, folder) as training:
        training.begins()
        begin = time.monotonic()
        problem = training.finish()
    if problem:
        raise RuntimeError(f"{name}: {problem}")
    return time.monotonic() - begin


def killed(
    name: str,
    folder: Path,
    seconds: float,
    moments: random.Random,
    aimed: list[bool],
) -> Iterator[dict[str, Any]]:
    """Trains with a kill for each item of `aimed`; yields what they were.

    It stops where the training ends, or cannot go on.
    """
    for into_write in aimed:
        after = moments.uniform(0, seconds)
        with Training(name, folder) as training:
            if not training.begins():
                break
            begin = time.monotonic()
            alive = training.wait_for(
                lambda b=begin, a=after: time.monotonic() - b >= a, 0.001
            )
            if alive and into_write:
                alive = training.wait_for(write_begins(name, folder), 0)
            now = time.monotonic()
            alive = alive and training.alive()
            training.kill()
        yield {
            "seconds": round(now - begin, 3),
            "inside_a_write": into_write and alive,
            "before_the_end": alive,
        }
        if (folder / "end.npz").exists():
            break


def soak(name: str, count: int, folder: Path, each: int = 4) -> dict[str, Any]:
    """Kills trainings until there were `count` kills; returns the record."""
    each = 1 if name == INSIDE else each
    moments = random.Random(f"{name} {SEED}")
    whole = not name.startswith(("BackupAndRestore", "ModelCheckpoint"))
    expected = folder / "unkilled"
    expected.mkdir(parents=True)
    seconds = unkilled(name, expected)
    kills: list[dict[str, Any]] = []
    number = 0
    while len(kills) < count:
        number += 1
        run = folder / f"run{number}"
        run.mkdir()
        # Every second kill waits for a write.
        size = min(each, count - len(kills))
        aims = [
            name == INSIDE or (name in WRITING and i % 2 == 1)
            for i in range(size)
        ]
        these = list(killed(name, run, seconds, moments, aims))
        these = [kill for kill in these if kill.pop("before_the_end")]
        said = ""
        if not (run / "end.npz").exists():
            with Training(name, run) as training:
                said = training.finish()
        ended = (run / "end.npz").exists()
        found = differences(run, expected, whole) if ended else ["no end"]
        for kill in these:
            kill.update(run=number, exact=not found)
            if found or said:
                kill.update(differs=found[:5], said=said)
            kills.append(kill)
            print(name, kill, flush=True)
    return {
        "seconds_unkilled": round(seconds, 2),
        "switch_step": end_of(expected)[0]["switch_step"],
        "exact": sum(kill["exact"] for kill in kills),
        "of": len(kills),
        "kills": kills,
    }


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--only", nargs="+", choices=TRAININGS, default=[])
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    # Once, for all the trainings that are forked.
    for module in ("keras", "keras_hybrid", "keras_hybrid.batches"):
        importlib.import_module(module)
    # So that leaving the block of a training kills its process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    versions = {
        name: importlib.metadata.version(name)
        for name in ("tensorflow", "keras")
    }
    record: dict[str, Any] = {"trainings": {}}
    if arguments.output.exists():
        record = json.loads(arguments.output.read_text(encoding="utf-8"))
    record |= {
        "command": "python benchmarks/kills.py",
        "versions": versions,
        "epochs": EPOCHS,
        "updates_an_epoch": STEPS,
        "seed": SEED,
    }
    for name in arguments.only or TRAININGS:
        with tempfile.TemporaryDirectory() as folder:
            result = soak(name, arguments.kills, Path(folder))
        record["trainings"][name] = result
        arguments.output.write_text(
            json.dumps(record, indent=1) + "\n", encoding="utf-8"
        )
        print(f"{name}: {result['exact']} of {result['of']} exact")


if __name__ == "__main__":
    main()
