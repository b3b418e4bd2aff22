"""`python -m keras_hybrid.cli`."""

import sys

from keras_hybrid.cli import main

if __name__ == "__main__":
    sys.exit(main())
