"""Metrics of sets of scores and images: win rates, distances, Inception Score."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.metrics.clusters import mean_and_stderr as mean_and_stderr
    from tastemaker.metrics.clusters import mean_interval as mean_interval
    from tastemaker.metrics.features import feature_network as feature_network
    from tastemaker.metrics.frechet import frechet_distance as frechet_distance
    from tastemaker.metrics.hue import hue_distance as hue_distance
    from tastemaker.metrics.named import Features as Features
    from tastemaker.metrics.named import Images as Images

__all__, __getattr__, __dir__ = lazy_exports(__name__)
