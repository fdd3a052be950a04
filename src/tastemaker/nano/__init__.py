"""The embedded model `nano`: a small latent diffusion model, two scorers, subjects, and the build.

Importing this package is cheap: it names the folders of the shipped weights and nothing else.
`captions` holds the grammar of the prompts; `build` rebuilds all weights.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
MODEL = WEIGHTS / "pipeline"
PREFERENCE = WEIGHTS / "preference"
JUDGE = WEIGHTS / "judge"
CHECKER = WEIGHTS / "checker.safetensors"
EXAMINER = WEIGHTS / "examiner.safetensors"
SUBJECTS = Path(__file__).parent / "subjects"

__all__ = ["CHECKER", "EXAMINER", "JUDGE", "MODEL", "PREFERENCE", "SUBJECTS", "WEIGHTS"]
