"""LoRA files of every dialect: read, fused, stacked, switched, written."""
