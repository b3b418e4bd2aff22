"""The version, readable without importing Keras."""

__version__ = "0.4.0.dev0"
