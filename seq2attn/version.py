"""The version of this package: nothing here imports the root."""

__version__ = "0.1.0"
