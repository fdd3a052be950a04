"""Data sets in and out: comparisons, captioned photographs, prompts, subjects."""
