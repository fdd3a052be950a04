"""Every credit scheme on both twins of the embedded model: same pairs, same steps, same search.

    python benchmarks/credit/compare.py --output runs/credit    # under two hours on two cores:
    python benchmarks/credit/compare.py --output runs/credit    # the same again, beside the first
    python benchmarks/credit/tables.py --output runs/credit     # at any time, of what is done

Resumable: killed and started again it goes on, in an empty folder from the committed scores. Two
processes on one folder share the rows; give each one thread (OMP_NUM_THREADS=1). Main rows come
first, so that what is done at any time makes a smaller table. A row is a scheme on a twin: `v`, the
embedded model, which predicts v, or `noise`, distilled from it (noise_twin.py).

1. Five pools, each with its own training prompts and seed: pairs by `nano_checker`, for all rows;
   D3PO's are of trajectories, which the twin samples for the same prompts.
2. Search, on pool 0: five betas, each at its own best guidance of a grid, on validation prompts.
   The highest mean score of `nano_checker` is taken. Examiner and judge have no say.
3. Test: the setting trained on all pools, each with its own test prompts.
4. Bands: the uniform loss on a tenth of the timesteps each, with uniform's setting, on test
   prompts of three pools; on the twin that predicts v those three that a claim names.

Scores are kept per image in OUTPUT/scores; images are deleted once they are scored, the base's
apart, to which distances are measured.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from comparison import Comparison, Sizes, options
from noise_twin import twin

from tastemaker.storage.images import decode
from tastemaker.storage.locks import exclusive
from tastemaker.storage.pool import Pool

SCORES = Path(__file__).parent / "scores.parquet"
BETAS = (31, 125, 500, 2000, 8000)
D3PO, LAN = "d3po", "uniform, LAN"
D3PO_BETAS = (0.1, 0.3, 1, 3, 10)
TRAJECTORIES = {"trajectories": True, "num_inference_steps": 20, "scheduler": None}
SCHEMES: dict[str, dict[str, Any]] = {
    "uniform": {"credit": "uniform"},
    "window 200-700": {"credit": {"name": "window", "low": 200, "high": 700}},
    "discounted": {"credit": "discounted"},
    "dde_single": {"credit": "dde_single"},
    "dde_step": {"credit": {"name": "dde_step", "buckets": 20}},
    "dde": {"credit": {"name": "dde", "buckets": 20}},
    "dde_single, no clip": {"credit": {"name": "dde_single", "kappa_max": None}},
    "dde, no clip": {"credit": {"name": "dde", "buckets": 20, "kappa_max": None}},
    "uniform, kept noise": {"credit": "uniform", "noise": "kept"},
    D3PO: {"loss": {"name": "d3po", "clip": 0.1}, "noise": "trajectory"},
    LAN: {"credit": "uniform"},
}
"""Options of training; `LAN` is `uniform` drawn with the base's channel statistics."""
BANDS = {
    f"{low}-{low + 100}": {"credit": {"name": "window", "low": low, "high": low + 100}}
    for low in range(0, 1000, 100)
}
CLAIMED = ("0-100", "300-400", "900-1000")
"""Bands that a claim is about."""
MAIN = ("uniform", "dde_single", "dde", "window 200-700")
LAST = (D3PO, LAN)
OTHER = tuple(scheme for scheme in SCHEMES if scheme not in (*MAIN, *LAST))
TWINS = ("noise", "v")
ROWS = (
    # Two processes: while one distils the twin, the other is at the row after the base's.
    *((twin, "base") for twin in TWINS),
    ("v", "uniform"),
    *(("noise", scheme) for scheme in MAIN),
    *(("v", scheme) for scheme in MAIN[1:]),
    *(("noise", scheme) for scheme in OTHER),
    *(("noise", band) for band in BANDS),
    # kappa is at most 1 where v is predicted: a clip at 10 changes nothing there.
    *(("v", scheme) for scheme in OTHER if "no clip" not in scheme),
    *(("v", band) for band in CLAIMED),
    *((twin, scheme) for scheme in LAST for twin in TWINS),
)
"""Twin and scheme of the rows in the order in which they are measured."""


@dataclass(frozen=True)
class CreditSizes(Sizes):
    """Those of this comparison.

    Attributes:
        band_pools: Pools that a band is tested on.
        distillation: Steps of the twin's.
    """

    band_pools: int = 3
    distillation: int = 1200


SIZES = CreditSizes(validation=192, test=128, images=1, pools=5, values=5)
SMOKE = CreditSizes(2, 2, 2, 2, 2, 3, 2, 1, 2, 1, 1, 2)


@dataclass(frozen=True)
class Policy:
    """A trained policy; scheme `base` is the twin as it was, of beta 0."""

    twin: str
    scheme: str
    beta: float
    pool: int

    @property
    def name(self) -> str:
        """Of its files."""
        name = f"{self.twin}-{self.scheme}-{self.beta:g}-{self.pool}"
        return name.replace(" ", "_").replace(",", "")


def tried(row: tuple[str, str], number: int = SIZES.values) -> dict[Policy, Policy]:
    """Return a row's policies by those of its search: a band's setting is uniform's."""
    twin, scheme = row
    betas = {"base": (0,), D3PO: D3PO_BETAS}.get(scheme, BETAS)
    like = "uniform" if scheme in BANDS else scheme
    return {
        Policy(twin, like, float(beta), 0): Policy(twin, scheme, float(beta), 0)
        for beta in betas[:number]
    }


class Credit(Comparison):
    """The comparison of credit schemes."""

    policy, column, tried = Policy, "scheme", staticmethod(tried)
    rows = ROWS
    described: ClassVar[dict[str, Any]] = {
        **(SCHEMES | BANDS),
        D3PO: {**SCHEMES[D3PO], "sampling": TRAJECTORIES},
    }

    def pools(self, row: tuple[str, str]) -> int:
        return self.sizes.band_pools if row[1] in BANDS else self.sizes.pools

    def twin(self, name: str) -> str:
        """Return a twin, distilled where it was not."""
        if name == "v":
            return "nano"
        pairs, folder = self.pairs(0), self.root / "twin"
        with exclusive(folder, beside=True, waits=True):
            return str(twin(pairs, folder, self.sizes.distillation))

    def pairs_of(self, policy: Policy) -> Path:
        """Return the pairs that a policy trains on, those of D3PO with trajectories."""
        if policy.scheme != D3PO:
            return self.pairs(policy.pool)
        folder = self.root / "pools" / f"{policy.pool}-{policy.twin}-trajectories"
        return self.paired(self.twin(policy.twin), policy.pool, folder, 2.5, **TRAJECTORIES)

    def model(self, policy: Policy) -> str:
        base = self.twin(policy.twin)
        if policy.scheme == "base":
            return base
        if policy.scheme == LAN:
            return self.model(replace(policy, scheme="uniform"))
        own = (SCHEMES | BANDS)[policy.scheme]
        loss = {"name": "dpo", **own.get("loss", {}), "beta": policy.beta}
        return self.trained(policy, base, self.pairs_of(policy), {**own, "loss": loss})

    def drawn(self, policy: Policy, split: str, scale: float, **own: Any) -> Pool:
        adapter = {"adapter": {"lan": True}} if policy.scheme == LAN else {}
        return super().drawn(policy, split, scale, **adapter, **own)

    def kept(self, policy: Policy) -> bool:
        return policy.scheme == "base"

    def scored(self, policy: Policy, split: str, scale: float, pool: Pool) -> pa.Table:
        """Add the `distance` to the scores.

        It is the root mean square difference to the base's image of the same prompt, noise and
        guidance, in grey levels.
        """
        table = super().scored(policy, split, scale, pool)
        distance = np.zeros(len(table), np.float32)
        if policy.scheme != "base":
            base = self.drawn(Policy(policy.twin, "base", 0.0, policy.pool), split, scale)
            distance = np.sqrt(np.square(pixels(pool) - pixels(base)).mean((1, 2, 3)))
        return table.append_column("distance", pa.array(distance))


def pixels(pool: Pool) -> np.ndarray:
    """Grey levels of a pool's images, [images, h, w, 3]."""
    rows = pool.candidates(("candidate_id", "image")).to_pylist()
    images = [decode(row["image"]["bytes"], row["candidate_id"]) for row in rows]
    return np.stack([np.asarray(image, np.float32) for image in images])


def main() -> None:
    """Run what is missing."""
    given = options(__doc__)
    Credit(given.output, SMOKE if given.smoke else SIZES).run(SCORES)


if __name__ == "__main__":
    main()
