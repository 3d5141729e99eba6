"""Hyperparameters of the shipped model's recipe: lung finder, then lung and lesion, then the probability."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field


class LesionRecipe(BaseModel):
    """The recipe `lesion`; each field with a description is an option of the command line by the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "lesion"
    architecture: str = "vgg19_bn"
    seed: int = Field(default=0, ge=0, description="seed of weights, sampling and augmentation")
    finder_steps: int = Field(default=1700, gt=0, description="optimiser steps of the lung finder")
    finder_batch_size: int = Field(default=24, gt=0, description="pictures in a batch of the lung finder")
    finder_learning_rate: float = Field(default=3e-3, gt=0, description="largest learning rate of the lung finder")
    view_steps: int = Field(
        default=3000, gt=0, description="optimiser steps of the view checker; batch and rate are the lung finder's"
    )
    steps: int = Field(default=1000, gt=0, description="optimiser steps of the lesion network, on all sources")
    left_out_steps: int = Field(
        default=1000, gt=0, description="optimiser steps of the network without the left-out sources"
    )
    warm_up_steps: int = Field(
        default=100, gt=0, description="first steps, in which the learning rate rises; then it is constant"
    )
    cool_down_steps: int = Field(default=900, ge=0, description="last steps, in which the learning rate falls to zero")
    batch_size: int = Field(default=12, gt=0, description="slices in a batch of the lesion network")
    learning_rate: float = Field(
        default=1e-4, gt=0, description="learning rate of VGG's convolutions; new layers have ten times as much"
    )
    frozen_layers: int = Field(
        default=14, ge=1, le=40, description="first layers of VGG that keep ImageNet's weights; 14 are blocks 1 and 2"
    )
    box_height: int = Field(
        default=192, gt=0, multiple_of=16, description="pixels of the lung box's picture from top to bottom"
    )
    box_width: int = Field(default=256, gt=0, multiple_of=16, description="the same from left to right")
    covid_ct_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of COVID-CT among the labelled slices of a batch",
    )

    @property
    def box_size(self) -> tuple[int, int]:
        """Height and width of the lung box's picture."""
        return self.box_height, self.box_width


LEFT_OUT_PARTS: Final = 4
"""One of this number of groups of COVID-CT, and of the volumes with lesion masks, is left out."""

LENGTHS: Final = ("steps", "left_out_steps")
"""Fields that may change in a run, which keeps its checkpoints."""
