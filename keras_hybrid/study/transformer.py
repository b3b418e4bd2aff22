"""A transformer that guesses the next word."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_hybrid._support import checks


@checks.registered
class Positions(layers.Layer):
    """Adds a trained vector a position."""

    def build(self, input_shape: Any) -> None:
        """Makes the table."""
        self.table = self.add_weight(
            shape=input_shape[1:], initializer="uniform", name="embeddings"
        )

    def call(self, inputs: Any) -> Any:
        """Returns the sum."""
        return inputs + self.table


def language_model(
    context: int,
    vocabulary: int,
    width: int = 64,
    blocks: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
) -> keras.Model:
    """Returns a causal transformer with the normalization first.

    Args:
        context: Words of an input.
        vocabulary: Different words; it ends in one logit each.
        width: Of the embeddings; four times that inside a block.
        blocks: Attention and two dense layers each.
        heads: Of the attention; they divide the width.
        dropout: Share of what each half of a block adds.

    References: Vaswani et al. 2017 (arXiv:1706.03762); the normalization first:
    Xiong et al. 2020 (arXiv:2002.04745).
    """
    words = keras.Input((context,), dtype="int32")
    x = layers.Embedding(vocabulary, width)(words)
    x = Positions()(x)
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(heads, width // heads)(
            y, y, use_causal_mask=True
        )
        x += layers.Dropout(dropout)(y) if dropout else y
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * width, activation="relu")(y)
        y = layers.Dense(width)(y)
        x += layers.Dropout(dropout)(y) if dropout else y
    x = layers.LayerNormalization()(x)
    # Logits in full precision whatever the policy.
    return keras.Model(words, layers.Dense(vocabulary, dtype="float32")(x))
