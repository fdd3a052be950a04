"""The embedded model `nano`: a small latent diffusion model, two scorers and how they are rebuilt.

Importing this package is cheap: it names the folders of the shipped weights and nothing else.
`captions` holds the grammar of the prompts; `build` rebuilds all weights.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
MODEL = WEIGHTS / "pipeline"
PREFERENCE = WEIGHTS / "preference"
JUDGE = WEIGHTS / "judge"

__all__ = ["JUDGE", "MODEL", "PREFERENCE", "WEIGHTS"]
