"""Pictures of an IP-Adapter in a plan of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tastemaker.backbones.identity import ip_adapter_identity
from tastemaker.config.sections import SamplingConfig
from tastemaker.datasets.prompts.pictures import pictures_by
from tastemaker.sampling.plans import Item, Plan


def with_pictures(
    config: SamplingConfig, planned: Plan, keys: Sequence[str]
) -> tuple[Plan, dict[str, Any]]:
    """Give every candidate the picture of its real image, or else of its prompt.

    Args:
        config: Sampling options; without an IP-Adapter the plan stays as it is.
        planned: The plan.
        keys: Ids of the plan's real images, or its prompts, in order.

    Returns:
        The plan, and the artifact's inputs: weights and pictures, by content.

    Raises:
        TastemakerError: The number of pictures is neither one nor the number of keys.
    """
    if config.ip_adapter is None or config.ip_adapter_image is None:
        return planned, {}
    pictures = pictures_by(config.ip_adapter_image, keys)

    def item(i: int) -> Item:
        each = planned.item(i)
        return replace(each, picture=pictures[each.source_id or each.prompt])

    inputs = {"ip_adapter": ip_adapter_identity(config.ip_adapter, pictures.values())}
    return Plan(len(planned), item), inputs
