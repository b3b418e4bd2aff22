"""Processes that share work, watched over: what ends a search."""

import sys
import time

import pytest

from keras_hybrid._support import processes


def _ends(code):
    return [sys.executable, "-c", f"import sys; sys.exit({code})"]


def test_workers_that_keep_dying_end_the_search(tmp_path):
    with pytest.raises(ValueError, match="has died 4 times"):
        processes.run(_ends(1), 1, tmp_path)


def test_a_clear_error_of_a_worker_is_not_repeated(tmp_path):
    with pytest.raises(ValueError, match="ended with the error above"):
        processes.run(_ends(2), 1, tmp_path)


def test_a_search_in_which_nothing_happens_is_given_up(tmp_path):
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    started = time.monotonic()
    with pytest.raises(ValueError, match="Nothing has happened"):
        processes.run(sleeping, 1, tmp_path, stall_limit=1)
    assert time.monotonic() - started < 30
