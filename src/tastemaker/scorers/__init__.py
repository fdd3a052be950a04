"""Scorers: pictures and prompts in, numbers out."""
