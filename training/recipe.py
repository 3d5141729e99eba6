"""Recipes: every hyperparameter of a training run, in groups. A group that a recipe does not use is None."""

from typing import Any, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from training.errors import TrainingError

_ACTIVATIONS: Final = {
    architecture: [f"{block}_{layer}" for block, count in enumerate(counts, 1) for layer in range(1, count + 1)]
    for architecture, counts in (("vgg16_bn", (2, 2, 3, 3, 3)), ("vgg19_bn", (2, 2, 4, 4, 4)))
}
"""Names of the networks' activations (Simonyan & Zisserman 2015, table 1, columns D and E)."""

_CHANNELS: Final = {"1": 64, "2": 128, "3": 256, "4": 512, "5": 512}
"""Channels of the maps of each block, the same in both networks."""

ThresholdRule: TypeAlias = Literal["half", "youden", "sensitivity-90"]

GroupBy: TypeAlias = Literal["patient", "paper"]
"""Slices of one patient, or of one paper, are always in the same fold."""


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSettings(_Group):
    """The network and its input."""

    architecture: Literal["vgg19_bn", "vgg16_bn"] = Field(default="vgg19_bn", description="torchvision network")
    head: Literal["pooled", "covariance", "classifier"] = Field(
        description="pooled: average and root mean square of some maps, then one linear layer; covariance: covariances "
        "between directions of these maps, then one linear layer; classifier: VGG's three layers, two outputs"
    )
    layers: tuple[str, ...] = Field(
        default=(),
        description="activations that the head reads, finest first, separated by commas: 5_2 is the second of the "
        "fifth block; default: the last",
    )
    components: int = Field(default=96, gt=0, description="principal directions of each map in the covariance head")
    input_size: int = Field(default=224, ge=32, description="pixels, side of the square input; VGG was trained at 224")
    magnify: float = Field(
        default=1.0,
        ge=1,
        description="factor by which the network enlarges its input first, so that its layers see smaller parts of a "
        "slice without finer detail",
    )

    @field_validator("layers", mode="before")
    @classmethod
    def _layers_from_text(cls, layers: object) -> object:
        return tuple(filter(None, layers.split(","))) if isinstance(layers, str) else layers

    @model_validator(mode="after")
    def _layers_exist(self) -> Self:
        known = _ACTIVATIONS[self.architecture]
        unknown = [name for name in self.layers if name not in known]
        if unknown:
            raise ValueError(f"{self.architecture} has no layer {unknown[0]}; it has {' '.join(known)}")
        if sorted(set(self.layers)) != list(self.layers):
            raise ValueError("layers must be in the network's order, each once")
        if self.head == "classifier" and self.layers:
            raise ValueError("layers are for head = pooled or covariance; the classifier reads the last one")
        finest = self.head_layers[0]  # the one with the fewest channels
        channels = _CHANNELS[finest[0]]
        if self.head == "covariance" and self.components > channels:
            raise ValueError(f"components {self.components}: layer {finest} has {channels} channels and directions")
        return self

    @property
    def head_layers(self) -> tuple[str, ...]:
        """Names of the activations that the head reads."""
        return self.layers or (_ACTIVATIONS[self.architecture][-1],)


class AugmentationSettings(_Group):
    """Random changes of training slices."""

    resize: int = Field(default=256, gt=0, description="pixels of the shorter side before the training crop")
    crop_scale_min: float = Field(default=0.5, gt=0, le=1, description="least share of the area in a training crop")
    jpeg_probability: float = Field(
        default=0.0, ge=0, le=1, description="share of augmented slices that are JPEG-compressed, at quality 30 to 95"
    )


class ProbeSettings(_Group):
    """The linear probe: the head's linear layer, fitted to frozen features."""

    fit_on: Literal["train", "train+val"] = Field(
        default="train",
        description="slices that the probe is fitted to. With train+val, temperature and threshold come from "
        "out-of-fold answers: those of probes that were fitted without the slice's fold",
    )
    group_by: GroupBy = Field(
        default="paper",
        description="slices that stay in one fold: those of a patient, or those of a paper and its patients",
    )
    views: int = Field(default=1, ge=1, description="views of each slice: the plain one, then augmented ones")
    penalty: float = Field(
        default=0.1, gt=0, description="L2 penalty of the weights, for features of mean squared length 1"
    )


class FineTuningSettings(_Group):
    """Training by gradient descent, with early stopping on validation."""

    epochs: int = Field(default=10, gt=0, description="largest number of epochs")
    batch_size: int = Field(default=16, gt=0, description="slices in a batch")
    trainable: Literal["all", "last_blocks", "last_block", "head"] = Field(
        default="all", description="layers that learn; last_blocks: blocks 4 and 5"
    )
    freeze_batch_norm: bool = Field(default=True, description="keep the running statistics of batch norms")
    optimiser: Literal["sgd", "adamw"] = Field(default="adamw", description="sgd has momentum 0.9")
    learning_rate: float = Field(default=3e-5, gt=0, description="learning rate of the head, constant")
    layer_decay: float = Field(
        default=0.8, gt=0, le=1, description="learning rate of a convolution divided by that of the next one"
    )
    weight_decay: float = Field(default=0.05, ge=0, description="L2 penalty (sgd) or decoupled decay (adamw)")
    patience: int = Field(default=3, gt=0, description="epochs without a better running average before an early stop")
    running_average: float = Field(
        default=0.7, ge=0, lt=1, description="weight of earlier epochs in the running averages of loss and accuracy"
    )
    select_by: Literal["accuracy", "auc"] = Field(
        default="auc", description="validation figure; the epoch with the best one is kept"
    )


class Recipe(_Group):
    """The hyperparameters of a training run. The command line can override each of them by its name."""

    name: str = Field(description="name of the recipe in the card and in metrics.json")
    seed: int = Field(default=0, ge=0, description="seed of weights, order, augmentation and dropout")
    network: NetworkSettings
    augmentation: AugmentationSettings = AugmentationSettings()
    probe: ProbeSettings | None = None
    fine_tuning: FineTuningSettings | None = None
    threshold_rule: ThresholdRule = Field(
        default="youden",
        description="rule that chooses the threshold, on validation or out-of-fold answers: fixed at 0.5; highest "
        "sensitivity + specificity (Youden 1950); highest threshold with sensitivity >= 0.90",
    )
    calibrate: bool = Field(
        default=True, description="fit a temperature, on validation or out-of-fold answers (arXiv 1706.04599)"
    )

    @model_validator(mode="after")
    def _groups_agree(self) -> Self:
        if self.probe and self.network.head == "classifier":
            raise ValueError("probe needs head = pooled or covariance; the classifier's three layers are not linear")
        if not self.probe and not self.fine_tuning:
            raise ValueError("nothing would be trained; pass probe = true or fine_tuning = true")
        if self.fits_validation and self.fine_tuning:
            raise ValueError("fit_on = train+val needs fine_tuning = false: fine-tuning chooses an epoch on validation")
        return self

    @property
    def fits_validation(self) -> bool:
        """Whether the network is fitted to validation too, so that its own answers there say nothing."""
        return self.probe is not None and self.probe.fit_on == "train+val"

    def override(self, **fields: object) -> Self:
        """Return the recipe with some fields replaced, each by its name alone (`epochs`, not `fine_tuning.epochs`).

        `probe` and `fine_tuning` take true, which adds the group with its defaults, or false, which removes it.

        Raises:
            TrainingError: unknown field, field of a group that the recipe does not have, or value out of range.
        """
        content: dict[str, Any] = self.model_dump()
        for group in OPTIONAL_GROUPS:
            content[group] = _switched(group, content[group], fields.pop(group, None))
        for name, value in fields.items():
            group = FIELD_GROUPS.get(name, "")
            if group and content[group] is None:
                raise TrainingError(
                    f"recipe {self.name} has no {group}, so {name} = {value!r} does nothing; "
                    f"pass --{group.replace('_', '-')} true"
                )
            (content[group] if group else content)[name] = value
        try:
            return type(self).model_validate(content)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = ".".join(map(str, problem["loc"]))
            where = f"recipe field {field} = {problem['input']!r}" if problem["type"] != "value_error" else "recipe"
            raise TrainingError(f"{where}: {problem['msg']}") from error

    def flat(self) -> dict[str, object]:
        """Return all fields by their name alone; those of absent groups are left out."""
        content = self.model_dump(mode="json")
        groups = [content.pop(group) or {} for group in GROUPS]
        return content | {name: value for group in groups for name, value in group.items()}

    def as_json(self) -> dict[str, JsonValue]:
        """Return the recipe as JSON, for the card and the records of runs."""
        content: dict[str, JsonValue] = self.model_dump(mode="json")
        return content


GROUPS: Final[dict[str, type[BaseModel]]] = {
    "network": NetworkSettings,
    "augmentation": AugmentationSettings,
    "probe": ProbeSettings,
    "fine_tuning": FineTuningSettings,
}
OPTIONAL_GROUPS: Final = ("probe", "fine_tuning")

FIELD_GROUPS: Final = {name: group for group, model in GROUPS.items() for name in model.model_fields}
"""The group of each field; fields of the recipe itself are not in it."""


def _switched(group: str, content: dict[str, Any] | None, switch: object) -> dict[str, Any] | None:
    """Return a group's content after it was switched on (true) or off (false); None leaves it as it is."""
    if switch is None:
        return content
    if str(switch).lower() not in ("true", "false"):
        raise TrainingError(f"recipe field {group} = {switch!r}: must be true or false")
    return (content or {}) if str(switch).lower() == "true" else None


RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="seed",
            network=NetworkSettings(head="classifier"),
            fine_tuning=FineTuningSettings(
                epochs=60,
                freeze_batch_norm=False,
                optimiser="sgd",
                learning_rate=0.01,
                layer_decay=1.0,
                weight_decay=0.0,
                patience=10,
                select_by="accuracy",
            ),
            threshold_rule="half",
            calibrate=False,
        ),
        Recipe(
            name="best",
            network=NetworkSettings(
                head="covariance", layers=("4_2", "4_3", "5_1", "5_2"), input_size=256, magnify=1.25
            ),
            augmentation=AugmentationSettings(resize=293, jpeg_probability=0.5),
            probe=ProbeSettings(fit_on="train+val", views=2),
        ),
    )
}
"""`seed` is the recipe of the report that this project started from, `best` the one of the shipped model."""
