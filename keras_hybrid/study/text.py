"""The next word: a text that Python ships, its own help on the language.

`pydoc_data.topics`: some 114,000 words, 4,200 different ones in Python 3.11.
Another version of Python has a slightly other text, so figures compare only
within one, which every record names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pydoc_data.topics
import re
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from keras_hybrid import batches
from keras_hybrid._support import checks
from keras_hybrid.study.photographs import check_size

NAME = "words"
CONTEXT = 32
# Of the windows, for validation and for the test each.
_HELD = 0.1


@dataclasses.dataclass(frozen=True)
class Text:
    """Windows of a text: each is `context` words and the one after them.

    Every position of a window is an example: the words up to it, and the next.

    Attributes:
        name: Name of the data set.
        train: Numbers of words, int32, shape (windows, context + 1).
        validation: Likewise, what triggers and choices look at.
        test: Likewise, read once at the end of a run.
        classes: Different words.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    classes: int

    # What records say of images.
    augmented: ClassVar[bool] = False
    cutout: ClassVar[int] = 0

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of an input: its words."""
        return (self.train.shape[1] - 1,)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of windows in each split."""
        return {
            split: len(getattr(self, split))
            for split in ("train", "validation", "test")
        }

    def training(
        self, batch_size: int, seed: int, first_epoch: int, epochs: int
    ) -> tuple[tf.data.Dataset, int]:
        """As `datasets.training_pipeline`: a function of (seed, epoch)."""
        count = len(self.train)
        held = tf.constant(self.train)

        def batch_of(chosen: tf.Tensor, epoch: tf.Tensor) -> Any:
            return _shifted(tf.gather(held, chosen))

        pipeline = batches.shuffled(
            count,
            batch_size,
            seed,
            first_epoch,
            epochs,
            batch_of,
            drop_remainder=True,
        )
        return pipeline, count // batch_size

    def evaluation(self, split: str, batch_size: int) -> tf.data.Dataset:
        """Batches of a split in order."""
        windows = tf.data.Dataset.from_tensor_slices(getattr(self, split))
        return batches.untuned(windows.batch(batch_size).map(_shifted))


def _shifted(windows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Words, and the next of each."""
    return windows[:, :-1], windows[:, 1:]


def read() -> tuple[np.ndarray, dict[str, Any]]:
    """Returns the text's words as numbers (int32), and what the text is."""
    topics = pydoc_data.topics.topics
    text = "\n".join(topics[name] for name in sorted(topics))
    words = re.findall(r"\w+|[^\w\s]", text)
    numbers = {word: i for i, word in enumerate(sorted(set(words)))}
    return np.array([numbers[word] for word in words], "int32"), {
        "name": "pydoc_data.topics",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "words": len(words),
        "vocabulary": len(numbers),
    }


def load(train_size: int | None = None, context: int = CONTEXT) -> Text:
    """Cuts the text into windows without overlap, in one fixed order.

    Args:
        train_size: None (default) for all, or the number of training windows.
        context: Words that the next one is guessed from, at most.

    Raises:
        ValueError: If there are fewer training windows.
    """
    words, about = read()
    count = len(words) // (context + 1)
    windows = words[: count * (context + 1)].reshape(count, context + 1)
    windows = windows[np.random.default_rng(0).permutation(count)]
    held = int(_HELD * count)
    train = windows[: -2 * held]
    if train_size is not None:
        checks.integer("train_size", train_size, low=1)
        check_size(train_size, len(train), NAME)
        train = train[:train_size]
    return Text(
        name=NAME,
        train=train,
        validation=windows[-2 * held : -held],
        test=windows[-held:],
        classes=int(about["vocabulary"]),
    )
