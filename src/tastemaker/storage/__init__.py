"""Files on disk: atomic writes, locks, pools, pairs and run folders, known by content."""
