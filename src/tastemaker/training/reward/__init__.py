"""Reward back-propagation (AlignProp): the gradient of a scorer to a trained model."""
