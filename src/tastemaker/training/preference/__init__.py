"""Preference optimisation: pairs to a trained model."""
