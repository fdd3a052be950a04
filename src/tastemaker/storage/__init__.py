"""Files on disk: artifacts and runs known by content, pools, pairs, atomic writes and locks."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.storage.artifact import Artifact as Artifact
    from tastemaker.storage.artifact import finished_key as finished_key
    from tastemaker.storage.groups import Group as Group
    from tastemaker.storage.pairs import PairSet as PairSet
    from tastemaker.storage.pool import Pool as Pool
    from tastemaker.storage.run_dir import RunDir as RunDir

__all__, __getattr__, __dir__ = lazy_exports(__name__)
