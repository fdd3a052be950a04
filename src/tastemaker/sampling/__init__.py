"""Prompts to images: samplers, candidates, reconstructions, blends."""
