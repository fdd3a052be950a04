"""Typed options of every command and run, and the YAML that they are read from."""
