"""What every figure holds to, wherever it stands."""

import math
import re
from xml.etree import ElementTree

import pytest

from keras_hybrid.reports import figures

COLOR = figures.Style.of(0)


def curves(title="A & B"):
    seeds = [[90, 91, math.nan], [89, 92, 93]]
    curve = figures.Curves("fixed <1>", COLOR, seeds, switch_epoch=2)
    other = figures.Curves("Plateau", figures.Style.of(1), seeds)
    return figures.draw_curves([curve, other], title, "%")


def trace():
    gamma = [1.0, 2.0, -1.0, 4.0, math.nan]
    return figures.draw_trace(
        gamma, [1.0, 1.5, 1.2, 2.0, math.nan], [0, 0, 0, 0, 1.0], "Trace"
    )


def parallel():
    fields = {"when": ["a", "b", None], "rate": [0.1, 1.0, 10.0]}
    return figures.draw_parallel(fields, [1.0, 2.0, math.nan], "C", "score")


DRAWN = {"curves": curves, "trace": trace, "parallel": parallel}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_figures_follow_the_page(draw):
    svg = draw()
    assert "currentColor" in svg
    # Neither ink nor paper has a colour that a dark page would not change.
    assert not re.search(r"(fill|stroke): #(000000|ffffff)", svg)


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_figures_hold_no_pictures(draw):
    # The page's policy allows none, and a browser would show a broken one.
    assert "<image" not in draw()


def test_curves_are_named():
    svg = curves()
    assert svg.startswith('<svg role="img" aria-label="A &amp; B"')
    texts = ElementTree.fromstring(figures.document(svg)).itertext()
    said = " ".join("".join(texts).split())
    for name in ("A & B", "fixed <1>", "Plateau", "epoch", "%"):
        assert name in said


def test_a_document_stands_alone():
    root = ElementTree.fromstring(figures.document(curves()))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "background: #ffffff" in root.get("style")
    assert figures.document(curves()) == figures.document(curves())


def test_a_trace_has_a_dot_for_each_positive_gamma():
    (path,) = re.findall(
        r'<path d="([^"]*)"[^>]*style="[^"]*stroke: #56b4e9[^"]*'
        r"stroke-linecap: round",
        trace(),
    )
    # Three of five: one is negative, one is after the switch.
    assert path.count("M") == path.count("L") == 3
