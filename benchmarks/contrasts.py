"""Arms of the study against each other.

Where epochs are a ceiling, ceilings.py prints them.

python benchmarks/contrasts.py [FOLDER ...]
"""

import argparse
from pathlib import Path

from keras_hybrid.reports import contrasts
from keras_hybrid.reports.glance import LEGEND
from keras_hybrid.study import summary

# An arm and what is subtracted: first what decides how finely rho is held.
PAIRS = (
    ("slots", "slots_variable"),
    ("slots_blend", "slots_variable_blend"),
    ("slots_at80", "slots_variable_at80"),
    ("slots_as_control", "slots_variable_as_control"),
    # The same learning rate, so the same start.
    ("slots", "slots_control"),
    ("slots_variable", "slots_control"),
    ("slots_blend", "slots_control"),
    ("slots_variable_blend", "slots_control"),
    ("slots_at80", "slots_at80_control"),
    ("slots_variable_at80", "slots_at80_control"),
    # Each tuned by itself.
    ("slots", "control"),
    ("slots_variable", "control"),
    ("slots_as_control", "control"),
    ("slots_variable_as_control", "control"),
    ("slots_control", "control"),
    ("hybrid", "control"),
)


def main() -> None:
    """Prints the contrasts of which there are runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("results/study")]
    )
    runs = [
        run
        for folder in parser.parse_args().folders
        for run in summary.load_runs(folder)[0]
    ]
    for arm, reference in PAIRS:
        found = contrasts.contrast(runs, arm, reference)
        if found is not None:
            print(contrasts.markdown(found))
    print(LEGEND)


if __name__ == "__main__":
    main()
