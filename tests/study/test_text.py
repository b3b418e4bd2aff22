"""Words: their splits and order, and the model that guesses the next one."""

import keras
import numpy as np
import pytest

from keras_hybrid.study import architectures, cells, datasets, text, transformer


@pytest.fixture(scope="module")
def words():
    return datasets.load("words")


def test_the_splits_are_the_text_without_overlap(words):
    numbers, about = text.read()
    assert len(numbers) == about["words"]
    assert words.classes == about["vocabulary"] == len(np.unique(numbers))
    parts = [words.train, words.validation, words.test]
    windows = np.concatenate(parts)
    assert windows.shape[1] == text.CONTEXT + 1
    assert sum(words.sizes.values()) == len(numbers) // (text.CONTEXT + 1)
    # Every word of the text is in one window, once.
    kept = numbers[: windows.size]
    np.testing.assert_array_equal(np.sort(windows.ravel()), np.sort(kept))
    found = {row.tobytes() for row in kept.reshape(windows.shape)}
    assert {row.tobytes() for row in windows} == found


def test_train_size_leaves_validation_as_it_is(words):
    fewer = datasets.load("words", train_size=10)
    np.testing.assert_array_equal(fewer.train, words.train[:10])
    np.testing.assert_array_equal(fewer.validation, words.validation)
    with pytest.raises(ValueError, match="train_size.*at most.*words"):
        datasets.load("words", train_size=10**6)


def test_a_label_is_the_next_word(words):
    for pipeline in (
        datasets.training_pipeline(words, 4, 0, 0, 1)[0],
        datasets.evaluation_pipeline(words, "test", 4),
    ):
        x, y = next(iter(pipeline))
        assert x.shape == y.shape == (4, text.CONTEXT)
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


def test_the_order_is_a_function_of_seed_and_epoch():
    few = datasets.load("words", train_size=10)

    def epoch(seed, first, last):
        pipeline, steps = datasets.training_pipeline(few, 3, seed, first, last)
        assert steps == 3
        return [x.numpy() for x, _ in pipeline]

    both = epoch(0, 0, 2)
    np.testing.assert_array_equal(both[3:], epoch(0, 1, 2))
    assert not np.array_equal(both[:3], both[3:])
    assert not np.array_equal(both[:3], epoch(1, 0, 1))


def test_an_architecture_is_for_images_or_for_words():
    with pytest.raises(ValueError, match="one of 'transformer_small'.*'mlp'"):
        architectures.build("mlp", (8,), 5)
    with pytest.raises(ValueError, match="one of 'linear'.*'transformer_small"):
        architectures.build("transformer_small", (8, 8, 1), 5)


def test_no_word_sees_those_after_it():
    keras.utils.set_random_seed(0)
    model = architectures.build("transformer_small", (6,), 11)
    x = np.arange(6)[None] % 11
    changed = x.copy()
    changed[0, 4] = 10
    before, after = (model.predict(v, verbose=0) for v in (x, changed))
    np.testing.assert_allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-3


def test_a_saved_transformer_predicts_the_same(tmp_path):
    model = transformer.language_model(6, 11, width=8, dropout=0.1)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = np.arange(12).reshape(2, 6) % 11
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), again.predict(x, verbose=0)
    )


def test_the_cell_has_a_ceiling_and_defaults():
    cell = cells.KNOWN["words-good-fit"]
    for kind in ("ceiling", "defaults"):
        beside = cells.KNOWN[f"words-good-fit-{kind}"]
        assert beside.epochs == 2 * cell.epochs
        assert beside.architecture == cell.architecture
    assert cell.name not in cells.CELLS
    assert isinstance(cell.load(), text.Text)
