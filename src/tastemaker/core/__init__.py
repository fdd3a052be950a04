"""What all else stands on: errors, tables of names, keyed seeds, devices, readers."""

__version__ = "0.1.0"
