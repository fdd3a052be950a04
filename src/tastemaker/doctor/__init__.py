"""What a run needs of a machine, worked out before it begins."""
