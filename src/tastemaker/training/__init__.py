"""Optimisation of a model: the loop, its checkpoints, and what each training adds."""
