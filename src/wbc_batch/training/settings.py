"""How to train: every number of it, and the sets of numbers that have a name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from wbc_batch.classifier import Bundle, read_bundle
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.errors import InputError
from wbc_batch.training.augmentation import Augmentation

__all__ = [
    "PRESETS",
    "USUAL_DIFFERENTIAL",
    "Settings",
    "choose",
    "fine_tuning",
    "preset",
    "recorded_settings",
]

#: Shares of the classes, in the order of `wbc_batch.schema.CLASSES`: the middle of what is usual in adults.
USUAL_DIFFERENTIAL = (0.01, 0.03, 0.30, 0.06, 0.60)

# Beyond, not even the optimiser's own numbers stay in range.
_FASTEST = 1e6

_CHOICES = {
    "freeze": ("none", "early", "body"),
    "optimiser": ("adamw", "adam"),
    "schedule": ("one-cycle", "constant"),
    "keep": ("best", "last"),
}


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes
    ----------
    architecture : str
        A key of `wbc_batch.classifier.network.ARCHITECTURES`.
    arguments : dict
        Of the architecture.
    preprocessing : Preprocessing
    augmentation : Augmentation
    start : str
        ``random``; ``imagenet`` (weights of an image network, where the architecture has some); a model
        bundle, by name or path, whose network is trained on; or a file of torchvision's weights, for a
        network of torchvision.
    freeze : {"none", "early", "body"}
        What of the network stays as it started: nothing, all but its last stages and the head, or
        all but the head.
    frozen_statistics : bool
        Batch normalisation keeps the statistics that it started with.
    epochs : int
    cells_per_epoch : int
        Cells drawn per epoch, with replacement and class balance.
    batch_size : int
    optimiser : {"adamw", "adam"}
    schedule : {"one-cycle", "constant"}
        Of the learning rate (one-cycle: Smith and Topin 2019).
    warm_up : float
        Fraction of the steps in which the one-cycle schedule rises.
    learning_rate : float
        Its peak, for all but the head.
    head_factor : float
        The head's learning rate, in those of the rest.
    weight_decay : float
    label_smoothing : float
    noisy : tuple of str
        Data sets whose labels are partly wrong: their cells get a loss that gives up on labels which the
        other cells speak against (generalised cross-entropy, Zhang and Sabuncu 2018).
    mixup : float
        Fraction of the cells that are blended with another one of their batch, picture and label alike, by
        up to a half (mixup, Zhang et al. 2018).
    drawn_share : float
        Of each class's draws, how many are of synthetic cells, however many of these there are.
    replayed : tuple of str
        Data sets that the model to start from was trained on already, and must not forget: of each class
        they get half of the draws. `wbc_batch.training.train.train` finds them by their names.
    prior : float
        How much the trained network is told of how often the classes come in blood: its calibrated logits get
        this share of the logarithm of `USUAL_DIFFERENTIAL`. 0 leaves it at classes that come equally often.
    averaging : float
        Decay of the exponential moving average of the weights, per step.
    keep : {"best", "last"}
        The epoch whose weights are kept: that of the best balanced accuracy on the validation cells, or the
        last, where these are too few to choose by.
    patience : int
        Epochs without a better balanced accuracy after which to stop; 0 is never. The one-cycle schedule
        brings most of its gain in its last epochs, when the learning rate falls: hence never.
    seed : int
    device : str
    """

    architecture: str = "compact_resnet"
    arguments: dict[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    augmentation: Augmentation = field(default_factory=Augmentation)
    start: str = "random"
    freeze: str = "none"
    frozen_statistics: bool = False
    epochs: int = 50
    cells_per_epoch: int = 4096
    batch_size: int = 32
    optimiser: str = "adamw"
    schedule: str = "one-cycle"
    warm_up: float = 0.08
    learning_rate: float = 1.5e-3
    head_factor: float = 1.0
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    noisy: tuple[str, ...] = ()
    mixup: float = 0.0
    drawn_share: float = 0.2
    replayed: tuple[str, ...] = ()
    prior: float = 0.4
    averaging: float = 0.99
    keep: str = "best"
    patience: int = 0
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"unknown {name} {getattr(self, name)!r} for a training; "
                    f"choose one of {', '.join(known)}"
                )
        if not 0.0 <= self.learning_rate <= _FASTEST:  # nor nan
            raise InputError(
                f"{self.learning_rate:g} is not a learning rate; give a small number, such as 0.001"
            )
        if self.seed < 0:
            raise InputError(f"the seed {self.seed} is negative; give a whole number of at least 0")
        if self.batches < 1:
            raise InputError(
                f"{self.cells_per_epoch} cells per epoch do not fill one batch of {self.batch_size}"
            )

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return self.cells_per_epoch // self.batch_size

    def described(self) -> dict[str, str]:
        """Return all that the result hangs on, as text that a person can compare; not the device."""
        return {
            f.name.replace("_", " "): str(getattr(self, f.name))
            for f in fields(self)
            if f.name != "device"
        }


# Turned, mirrored and hardly more.
_MILD = Augmentation(
    scale=0.1,
    stain=0.05,
    mixing=0.02,
    fading=0.0,
    contrast=0.05,
    shading=0.02,
    blur=0.5,
    noise=2.0,
)

#: Settings by name.
PRESETS: dict[str, Settings] = {
    "compact": Settings(),
    # The bundled model's.
    "lite": Settings(
        architecture="efficientnet_lite0",
        arguments={"dropout": 0.3, "stochastic_depth": 0.1},
        preprocessing=Preprocessing(size=160, context=1.9),
        augmentation=Augmentation(fading=0.4, window=0.6),
        start="imagenet",
        epochs=20,
        cells_per_epoch=2560,
        warm_up=0.1,
        learning_rate=6e-4,
        head_factor=3.0,
        label_smoothing=0.15,
        mixup=0.5,
        averaging=0.995,
    ),
    # As the original project trained: whole pictures, their colours as they are.
    "seed": Settings(
        architecture="torchvision",
        arguments={"name": "resnet18", "dropout": 0.5},
        preprocessing=Preprocessing(size=224, view="image"),
        augmentation=_MILD,
        epochs=20,
        optimiser="adam",
        schedule="constant",
        learning_rate=1e-4,
        weight_decay=0.0,
        label_smoothing=0.0,
        prior=0.0,
        averaging=0.0,
    ),
}


def preset(name: str) -> Settings:
    """Return the settings of that name.

    Raises
    ------
    InputError
        If there are none.
    """
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def fine_tuning(bundle: Bundle) -> Settings:
    """Return settings to fine-tune a model with a laboratory's own cells: gently, and not for long."""
    return Settings(
        architecture=bundle.architecture,
        arguments=bundle.arguments,
        preprocessing=bundle.preprocessing,
        start=str(bundle.path),
        frozen_statistics=True,
        epochs=10,
        cells_per_epoch=640,
        warm_up=0.1,
        learning_rate=1e-4,
        head_factor=3.0,
        prior=0.0,  # the model has been told
        averaging=0.98,
        keep="last",
    )


def recorded_settings(bundle: Bundle) -> Settings:
    """Read the settings that a model was trained with; what it does not state is as by default.

    Raises
    ------
    InputError
        If the model does not say how it was trained.
    """
    recorded = bundle.training.get("settings")
    if not recorded:
        raise InputError(
            f"the model {bundle.name!r} does not say how it was trained; choose one "
            "made by wbc-batch train"
        )
    augmentation = _known_fields(Augmentation, recorded.get("augmentation", {}))
    described = {"preprocessing": bundle.preprocessing, "augmentation": augmentation}
    settings: Settings = _known_fields(Settings, recorded | described)
    return settings


def _known_fields(kind: type, values: Mapping[str, Any]) -> Any:
    """Make settings from what an older or newer version may have recorded, as JSON."""
    names = {field.name for field in fields(kind)}
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in names
        }
    )


def choose(named: str | None, start: str | None, **changes: Any) -> Settings:
    """Settle how to train.

    Parameters
    ----------
    named : str or None
        Of the preset; None for `fine_tuning` where there is a model to start from, else for the first one.
    start : str or None
        Model, or file of weights, to start from.
    **changes
        Settings to change; None leaves one as it is.

    Raises
    ------
    InputError
        If there is no such preset.
    ModelError
        If there is no such model.
    """
    if start is None:
        settings = preset(named or next(iter(PRESETS)))
    elif named is None:
        settings = replace(fine_tuning(read_bundle(start)), start=start)
    else:
        settings = replace(preset(named), start=start)
    return replace(settings, **{k: v for k, v in changes.items() if v is not None})
