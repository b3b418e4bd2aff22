"""The picture and the page of where triggers land."""

import re
import xml.etree.ElementTree

import numpy as np
import pytest

from keras_hybrid.reports import figures
from keras_hybrid.reports import regret as pictures
from keras_hybrid.study import regret
from keras_hybrid.study.curves import STEP_TRIGGERS, Curve


def curve(seed=0, fired=None):
    """Six epochs; the best switch is after the third."""
    losses = [1.0, 0.5, 0.6, 0.7, 0.8, 0.9]
    history = dict.fromkeys(
        ["loss", "val_loss", "averaged_val_loss", "val_accuracy"], losses
    )
    history |= dict.fromkeys(
        ["averaged_val_accuracy", "averaged_test_accuracy"], [0.1] * 6
    )
    final = [0.5, 0.7, 0.9, 0.7, 0.5, 0.3]
    return Curve(
        cell="<cell>",
        seed=seed,
        ceiling=9,
        share=0.5,
        learning_rate=1e-3,
        history=history,
        switches=[1, 2, 3, 4, 5, 6],
        val_accuracy=final,
        test_accuracy=[x - 0.1 * seed for x in final],
        versions={},
        fired=fired or {},
    )


def test_a_choice_is_the_mean_over_the_seeds():
    found = pictures.choices([curve(0), curve(1)], "test_accuracy")
    assert [choice.rule for choice in found] == list(regret.RULES)
    chosen = {choice.rule: choice for choice in found}["loss, patience 3"]
    # The best is epoch 2, so it fires after 5; the curve's best is after 3.
    assert (chosen.switched, chosen.trained, chosen.late) == (5, 7.5, 2)
    smooth = np.array([0.7, 0.5, 0.3]).mean()
    assert chosen.accuracy == pytest.approx(100 * (smooth - 0.05))
    best = np.array([0.7, 0.9, 0.7]).mean()
    assert chosen.lost == pytest.approx(100 * (best - smooth))


def test_step_triggers_are_told_where_every_curve_knows_them():
    fired = dict.fromkeys(STEP_TRIGGERS, 1.5)
    both = pictures.choices([curve(0, fired), curve(1, fired)], "val_accuracy")
    assert {c.switched for c in both if c.rule in STEP_TRIGGERS} == {1.5}
    one = pictures.choices([curve(0, fired), curve(1)], "val_accuracy")
    assert not {c.rule for c in one} & STEP_TRIGGERS.keys()


def test_the_figure_names_its_cells_and_those_that_are_drawn():
    svg = pictures.draw({"a": [curve()], "b": [curve()]}, columns=2)
    document = xml.etree.ElementTree.fromstring(figures.document(svg))
    assert "a, b" in document.attrib["aria-label"]
    texts = " ".join("".join(t.itertext()) for t in document.iter())
    assert "accuracy, patience 3" in texts
    assert "GradientSignalToNoise" not in texts
    # The same records give the same file.
    assert svg == pictures.draw({"a": [curve()], "b": [curve()]}, columns=2)


@pytest.mark.parametrize("lowest", [0.9, 0.1])
def test_a_run_that_failed_does_not_squash_the_plot(lowest):
    ends = [0.90, 0.91, 0.92, 0.91, lowest, 0.90]
    drawn = curve()._replace(test_accuracy=ends, switches=[1, 2, 3, 4, 5, 20])
    document = xml.etree.ElementTree.fromstring(
        figures.document(pictures.draw({"a": [drawn]}))
    )
    texts = ["".join(t.itertext()).strip() for t in document.iter()]
    heights = {float(t) for t in texts if re.fullmatch(r"\d+\.?\d*", t)}
    # The others are epochs.
    assert min(x for x in heights if x > 20) > 60


def test_the_page_has_every_rule_of_every_cell(tmp_path):
    path = tmp_path / "page.html"
    pictures.write_html({"<cell>": [curve()]}, path)
    page = path.read_text("utf-8")
    assert "<cell>" not in page
    rows = re.findall(r'<th scope="row">(.*?)</th>', page)
    assert sorted(rows) == sorted(regret.RULES)
    lost = [float(x) for x in re.findall(r"</th>\n<td>(.*?)</td>", page)]
    assert len(lost) == len(rows)
    assert lost == sorted(lost)
    with pytest.raises(ValueError, match="at least one curve"):
        pictures.write_html({}, path)
