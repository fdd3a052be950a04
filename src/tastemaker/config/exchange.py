"""Options of the commands that take LoRAs from other tools, and give LoRAs and runs to others."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tastemaker.config.sections import Model, Section
from tastemaker.core.values import Name


class LoraImportConfig(Section):
    """A LoRA file of another tool to a folder that is usable as `model` anywhere."""

    lora: str = Field(description="A .safetensors file in kohya's layout or diffusers' form.")
    model: Model = Field(
        description="The model that it belongs to: name, hub id or pipeline folder."
    )


class ExportConfig(Section):
    """A trained LoRA to other tools."""

    layout: Literal["kohya", "diffusers", "merged"] = Field(
        "kohya",
        description="One file for kohya's scripts, ComfyUI and A1111; one in diffusers' form, with"
        " all LoRAs that this one lies on; or a whole pipeline, with the LoRAs in its weights.",
    )
    name: Name | None = Field(None, description="Of kohya's file; default: the LoRA's folder's.")


class PublishConfig(Section):
    """Options of `publish`: a finished run as a folder for others; on request on the hub."""

    license: str | None = Field(None, description="The weights' licence, as the hub names it.")
    data: str | None = Field(None, description="The training data, in a sentence or a paragraph.")
    push_to_hub: str | None = Field(
        None, description="owner/name of a repository to upload to; nothing is uploaded without."
    )
    private: bool = Field(True, description="Make a new repository private.")
