"""python -m keras_hybrid.cli: the command line without its script."""

import sys

from keras_hybrid.cli import main

sys.exit(main())
