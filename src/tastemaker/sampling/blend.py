"""Blend real images with the best candidate of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm import tqdm

from tastemaker.config.commands import takes_options
from tastemaker.config.sections import BlendConfig
from tastemaker.core.batching import batched
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import processes
from tastemaker.pairing.picks import highest
from tastemaker.preflight import check, check_loading, expect
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.candidates import Rows, candidates_made, write_candidates
from tastemaker.storage.files import config_key
from tastemaker.storage.groups import Groups, matched, score_keys
from tastemaker.storage.images import decode, encode_png
from tastemaker.storage.pool import Pool
from tastemaker.storage.unfinished import saved_when_stopped

if TYPE_CHECKING:
    from tastemaker.backbones import Backbone


@dataclass(frozen=True)
class Blended:
    """A real image and the candidate that it is mixed with."""

    real: str
    best: str


@takes_options(BlendConfig)
def blend(config: BlendConfig, real: Path, candidates: Path, output: Path) -> Path:
    """Mix every real image with the best-scored candidate for its caption.

    `x = alpha * best + (1 - alpha) * real`, in latents (decoded again) or in pixels.

    Args:
        config: Share, space, and the scorer that says which candidate is best.
        real: A pool of real images.
        candidates: A scored pool of candidates for them, or for their captions.
        output: Folder of the pool; a blend's `source_id` is its real image.

    Returns:
        `output`, a finished pool.

    Raises:
        TastemakerError: No score by that scorer, no real image with a candidate, images of
            different sizes, a full disk.

    References:
        The normal stage of a document on HG-DPO that describes it so; the paper's own form is
        `reconstruct`.
    """
    from tastemaker.backbones import model_identity

    check(config)
    for folder in (real, candidates):
        expect(folder, "pool")
    pools = Pool(real), Pool(candidates)
    inputs = {
        "model": model_identity(config.model) if config.space == "latents" else {},
        "real": finished_key(real),
        "candidates": finished_key(candidates),
        "scores": score_keys(pools[1], {config.scorer}),
    }
    settings = config.model_dump(mode="json", exclude={"device"})
    artifact = Artifact(output, "blend", {**settings, "inputs": inputs})
    with artifact.claimed(partial(check_loading, config)) as unfinished:
        if unfinished:
            items = _plan(config, *pools)
            _make_missing(config, items, pools, Pool(output))
            Pool(output).require(len(items))
            artifact.finish(candidates=len(items))
    return output


def _plan(config: BlendConfig, real: Pool, candidates: Pool) -> list[Blended]:
    """Match every real image with its best candidate, by image or else by caption."""
    items = []
    for group, other in matched(Groups(real), Groups(candidates, scored={config.scorer})):
        if other is not None:
            best = highest(other.scored_by(config.scorer))
            items += [Blended(each, other.candidate_ids[best]) for each in group.candidate_ids]
    if not items:
        raise TastemakerError(
            f"no image of {real.folder} has a candidate in {candidates.folder};"
            f" generate some: tastemaker generate {candidates.folder} items={real.folder}."
        )
    return items


def _make_missing(
    config: BlendConfig, items: Sequence[Blended], sources: tuple[Pool, Pool], pool: Pool
) -> None:
    from tastemaker.backbones import load_backbone

    state = processes()
    shards = list(enumerate(batched(items, config.shard_size)))
    mine = shards[state.process_index :: state.num_processes]
    missing = [(i, part) for i, part in mine if not pool.shard(i).is_file()]
    backbone = None
    if missing and config.space == "latents":
        backbone = load_backbone(config.model, device=config.device, dtype=config.dtype)
    rows = tuple(Rows(each) for each in sources)
    with tqdm(total=sum(len(part) for _, part in missing), desc="blend", unit="images") as bar:
        for index, part in missing:
            made = candidates_made(pool.unfinished(index))
            bar.update(len(made))
            with saved_when_stopped(pool.unfinished(index), made, write_candidates):
                for item in part[len(made) :]:
                    made.append(_blended(config, item, rows, backbone))
                    bar.update()
                write_candidates(pool.shard(index), made)
    state.wait_for_everyone()


def _blended(
    config: BlendConfig, item: Blended, sources: Sequence[Rows], backbone: Backbone | None
) -> dict[str, Any]:
    """One row of the new pool."""
    real, best = sources[0][item.real], sources[1][item.best]
    key = config_key(config.space, config.alpha, item.real, item.best)
    row = {
        "candidate_id": f"{real['prompt_id']}-{key}",
        "prompt_id": real["prompt_id"],
        "prompt": real["prompt"],
        "seed": best["seed"],
        "source": "blend",
        "source_id": item.real,
        "timestep": None,
        "model": best["model"],
    }
    if backbone is None:
        pictures = [decode(each["image"]["bytes"], each["candidate_id"]) for each in (real, best)]
        _same(item, [picture.size for picture in pictures])
        image = Image.blend(pictures[0], pictures[1], config.alpha)
    else:
        from tastemaker.backbones.latents import encode_row

        ours, theirs = (encode_row(backbone, each)[0] for each in (real, best))
        _same(item, [tuple(each.shape) for each in (ours, theirs)])
        latents = config.alpha * theirs + (1 - config.alpha) * ours
        (image,) = backbone.vae.decode_images(latents[None])
        row["latents"] = latents.contiguous().numpy().tobytes()
        row["latents_shape"] = list(latents.shape)
    row["image"] = {"bytes": encode_png(image), "path": None}
    return row


def _same(item: Blended, sizes: Sequence[Any]) -> None:
    if len(set(sizes)) > 1:
        raise TastemakerError(
            f"real image {item.real} and candidate {item.best} differ in size ({sizes[0]},"
            f" {sizes[1]}); import the real images at the model's size."
        )
