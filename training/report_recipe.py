"""Hyperparameters of the report that this project started from: all of VGG fine-tuned, with early stopping."""

from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Architecture: TypeAlias = Literal["vgg19_bn", "vgg16_bn"]
"""torchvision's names of the report's two networks."""

THRESHOLD: Final = 0.5
"""Probability at or above which a slice is called COVID, as in the report."""


class ReportRecipe(BaseModel):
    """The recipe `report`; each field with a description is an option of the command line by the same name.

    `--architectures` and `--seeds` set the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "report"
    architecture: Architecture = "vgg19_bn"
    seed: int = Field(default=0, ge=0)
    input_size: int = Field(default=224, ge=32, description="pixels, side of the square input")
    resize: int = Field(default=256, gt=0, description="pixels of the shorter side before the training crop")
    crop_scale_min: float = Field(default=0.5, gt=0, le=1, description="least share of the area in a training crop")
    epochs: int = Field(default=60, gt=0, description="largest number of epochs")
    batch_size: int = Field(default=16, gt=0, description="slices in a batch")
    learning_rate: float = Field(default=0.01, gt=0, description="learning rate of every layer, constant")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of stochastic gradient descent")
    patience: int = Field(default=10, gt=0, description="epochs without a better running average before an early stop")
    running_average: float = Field(
        default=0.7, ge=0, lt=1, description="weight of earlier epochs in the running averages of loss and accuracy"
    )
