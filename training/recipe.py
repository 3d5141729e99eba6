"""Every hyperparameter of a training run, and the two recipes."""

from typing import Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from training.errors import TrainingError

_ACTIVATIONS: Final = {
    architecture: [f"{block}_{layer}" for block, count in enumerate(counts, 1) for layer in range(1, count + 1)]
    for architecture, counts in (("vgg16_bn", (2, 2, 3, 3, 3)), ("vgg19_bn", (2, 2, 4, 4, 4)))
}
"""The networks' activations (Simonyan & Zisserman 2015, table 1, D and E)."""

_CHANNELS: Final = {"1": 64, "2": 128, "3": 256, "4": 512, "5": 512}
"""Of each block's maps, in both networks."""

ThresholdRule: TypeAlias = Literal["half", "youden", "sensitivity-90"]

Together: TypeAlias = Literal["patient", "paper"]
"""Whose slices no fold parts."""


class Hyperparameters(BaseModel):
    """Settings that never change once made; each can be overridden on the command line by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("layers", mode="before", check_fields=False)
    @classmethod
    def _layers_from_text(cls, layers: object) -> object:
        return tuple(filter(None, layers.split(","))) if isinstance(layers, str) else layers

    def override(self, **fields: object) -> Self:
        """The same with some fields replaced.

        Raises:
            TrainingError: an unknown field or a value out of range; names the field.
        """
        try:
            return type(self).model_validate(self.model_dump() | fields)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field, kind = ".".join(map(str, problem["loc"])), type(self).__name__.lower()
            where = f"{kind} field {field} = {problem['input']!r}" if field else kind
            raise TrainingError(f"{where}: {problem['msg']}") from error


class Recipe(Hyperparameters):
    """The hyperparameters of a training run."""

    name: str = Field(description="what the recipe is called in the card and in metrics.json")
    architecture: Literal["vgg19_bn", "vgg16_bn"] = Field(default="vgg19_bn", description="torchvision network")
    head: Literal["pooled", "covariance", "classifier"] = Field(
        description="pooled: average and root-mean-square pooling of some maps and one linear layer; covariance: "
        "covariances between directions of these maps instead; classifier: VGG's three linear layers, the last one "
        "replaced by two outputs"
    )
    components: int = Field(default=96, gt=0, description="principal directions of each map in the covariance head")
    layers: tuple[str, ...] = Field(
        default=(),
        description="activations that the head sees, finest first, commas between: 5_2 is the second of the "
        "fifth block; default: the last",
    )
    seed: int = Field(default=0, ge=0, description="seed of weights, order, augmentation and dropout")

    input_size: int = Field(
        default=224, ge=32, description="pixels, side of the network's square input; VGG was trained at 224"
    )
    magnify: float = Field(
        default=1.0,
        ge=1,
        description="the network first enlarges its input by this: its layers see smaller parts of a slice then, and "
        "yet no detail finer than input_size, which tells sources apart",
    )
    resize: int = Field(default=256, gt=0, description="pixels, shorter side before the training crop")
    crop_scale_min: float = Field(default=0.5, gt=0, le=1, description="least share of the area in a training crop")

    jpeg_probability: float = Field(
        default=0.0, ge=0, le=1, description="share of augmented slices that are JPEG-compressed, at quality 30 to 95"
    )

    probe: bool = Field(description="first fit the head on frozen features (linear probe)")
    fit_on: Literal["train", "train+val"] = Field(
        default="train",
        description="slices that the probe is fitted to. train+val: validation's too; temperature and threshold then "
        "come from answers of probes that were fitted without the slice's fold",
    )
    together: Together = Field(
        default="paper",
        description="whose slices no fold of out-of-fold answers parts: a patient's, or also all COVID slices of one "
        "paper, as test's COVID slices are mostly of other papers than train's",
    )
    probe_views: int = Field(default=1, ge=1, description="views of a slice in the probe: plain, then augmented")
    probe_penalty: float = Field(
        default=0.1, gt=0, description="L2 penalty of the probe's weights, for features of mean squared length 1"
    )

    epochs: int = Field(ge=0, description="most epochs of fine-tuning; 0 keeps the probe")
    batch_size: int = Field(default=16, gt=0, description="slices a step")
    trainable: Literal["all", "last_blocks", "last_block", "head"] = Field(
        default="all", description="what fine-tuning may change; last_blocks: blocks 4 and 5"
    )
    freeze_batch_norm: bool = Field(description="keep the batch norms' running statistics")
    optimiser: Literal["sgd", "adamw"] = Field(description="sgd has momentum 0.9")
    learning_rate: float = Field(gt=0, description="of the head; constant")
    layer_decay: float = Field(default=1.0, gt=0, le=1, description="learning rate of a convolution over the one above")
    weight_decay: float = Field(default=0.0, ge=0, description="L2 penalty (sgd) or decoupled decay (adamw)")
    patience: int = Field(gt=0, description="epochs without a better running average before stopping early")
    running_average: float = Field(default=0.7, ge=0, lt=1, description="weight of the past in those running averages")
    select_by: Literal["accuracy", "auc"] = Field(description="validation figure whose best epoch is kept")
    threshold_rule: ThresholdRule = Field(
        default="youden",
        description="how the threshold is chosen, on validation or out of fold: fixed at 0.5; highest sensitivity + "
        "specificity (Youden 1950); or the highest threshold with sensitivity >= 0.90",
    )
    calibrate: bool = Field(
        default=True, description="fit a temperature, on validation or out of fold (arXiv 1706.04599)"
    )

    @model_validator(mode="after")
    def _probe_needs_a_linear_head(self) -> Self:
        if self.probe and self.head == "classifier":
            raise ValueError("probe needs head = pooled or covariance; the classifier's three layers are not linear")
        return self

    @model_validator(mode="after")
    def _validation_is_not_trained_on_twice(self) -> Self:
        if self.fit_on == "train+val" and (self.epochs or not self.probe):
            raise ValueError("fit_on = train+val is for a probe without epochs, whose best validation would choose")
        return self

    @model_validator(mode="after")
    def _layers_exist(self) -> Self:
        _check_layers(self.architecture, self.layers)
        if self.head == "classifier" and self.layers:
            raise ValueError("layers are for head = pooled or covariance; the classifier sees the last one")
        return self

    @model_validator(mode="after")
    def _maps_have_as_many_directions(self) -> Self:
        finest = self.pooled_layers[0]  # and the narrowest
        channels = _CHANNELS[finest[0]]
        if self.head == "covariance" and self.components > channels:
            raise ValueError(f"components {self.components}: layer {finest} has {channels} channels and directions")
        return self

    @property
    def pooled_layers(self) -> tuple[str, ...]:
        """The activations that the head sees, by name."""
        return self.layers or (_ACTIVATIONS[self.architecture][-1],)


def _check_layers(architecture: str, layers: tuple[str, ...]) -> None:
    known = _ACTIVATIONS[architecture]
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise ValueError(f"{architecture} has no layer {unknown[0]}; it has {' '.join(known)}")
    if sorted(set(layers)) != list(layers):
        raise ValueError("layers must be in the network's order, each once")


RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="seed",
            head="classifier",
            probe=False,
            epochs=60,
            freeze_batch_norm=False,
            optimiser="sgd",
            learning_rate=0.01,
            patience=10,
            select_by="accuracy",
            threshold_rule="half",
            calibrate=False,
        ),
        Recipe(
            name="best",
            head="covariance",
            probe=True,
            fit_on="train+val",
            layers=("4_2", "4_3", "5_1", "5_2"),
            input_size=256,
            magnify=1.25,
            resize=293,
            jpeg_probability=0.5,
            probe_views=2,
            epochs=0,
            freeze_batch_norm=True,
            optimiser="adamw",
            learning_rate=3e-5,
            layer_decay=0.8,
            weight_decay=0.05,
            patience=3,
            select_by="auc",
        ),
    )
}
"""`seed` is the recipe of the report this project grew from; `best` is ours (docs/decisions.md says why)."""
