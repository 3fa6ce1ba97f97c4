"""The presets: each is a function that returns the parameters of a whole run (the flow `lifecycle`).

Other flows take a subset: `find_preset("emoji").parameters("train-teacher")`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flows.catalog import find_flow
from flows.parameters import LifecycleParameters
from flows.photo_models import Machine, photo_models
from pipeline.config import Config
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.ontology_config import OntologyConfig
from pipeline.contrastive.text_backbone_config import TextBackboneConfig
from pipeline.contrastive.tonics import TonicsConfig
from pipeline.distillation.config import DistillationConfig
from pipeline.distillation.loss_config import DistillationLossConfig
from pipeline.errors import UnknownNameError
from pipeline.leaks.bounds import LeakCheckConfig
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.auto_augment_config import RandAugmentConfig
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.policies.shuffled import ShuffledConfig
from pipeline.registration.config import RegistrationConfig
from pipeline.registration.gate import GateConfig
from pipeline.report.config import ReportConfig
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.sources.demo.emoji import EmojiConfig
from pipeline.sharding.sources.fashion_mnist import FashionMnistConfig
from pipeline.sharding.sources.image_folder import ImageFolderConfig
from pipeline.sharding.writing.images import ImagesConfig
from pipeline.sharding.writing.split_config import SplitConfig
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.linear_probe.config import LinearProbeConfig
from pipeline.training.model_config import ModelConfig
from pipeline.training.optimizer_config import AdamWConfig
from pipeline.training.training_config import TrainingConfig

ParametersT = TypeVar("ParametersT", bound=Config)
DEFAULT_PRESET = "emoji"


def emoji() -> LifecycleParameters:
    """Emoji by several artists, the Noto family held out: the demo, 6 to 16 minutes on two cores.

    The student has a convolutional stem: 5,000 images are too few for a plain transformer to learn locality
    (accuracy on the held-out artist 27% with linear patches, 38% with the stem; 10 epochs, one seed). The
    curriculum advances by the accuracy on images of trained concepts that are held out from training, since the
    validation split has too few.
    """
    loader = LoaderConfig(
        augment=AugmentConfig(flip=0.5, brightness=0.2, contrast=0.2, saturation=0.5, crop_min_area=0.6)
    )
    return LifecycleParameters(
        data=ShardingConfig(source=EmojiConfig(), split=SplitConfig(holdout_family="noto")),
        teacher=ClassificationConfig(
            model=ModelConfig(name="resnet_small"),
            image_size=64,
            label_smoothing=0.05,
            loader=loader,
            training=_training(epochs=12, lr=4e-3, ema_decay=0.995, evaluate_every_epochs=3),
        ),
        student=DistillationConfig(
            model=ModelConfig(
                name="deit_micro_distilled",
                kwargs={"stem": "conv", "patch_size": 16, "width": 192, "depth": 4, "heads": 3},
            ),
            distillation=DistillationLossConfig(method="token", token_target="soft", temperature=3.0, weight=0.5),
            image_size=64,
            label_smoothing=0.05,
            loader=loader,
            training=_training(epochs=12, lr=8e-4, ema_decay=0.995, evaluate_every_epochs=3),
        ),
        ontology=OntologyConfig(held_out_share=0.05, use_validation_split=False),
        clip=ContrastiveConfig(
            text=TextBackboneConfig(width=128, depth=2, heads=2, context_length=16),
            embed_dim=128,
            policy=TonicsConfig(
                nodes_per_batch=8,
                refresh_every_steps=20,
                threshold=0.3,
                patience=1,
                momentum=0.3,
                held_out_batches=4,
            ),
            loader=loader,
            training=_training(epochs=6, lr=1e-3, evaluate_every_epochs=2),
        ),
        # The demo's champion is the student, although it is less accurate than its teacher.
        registration=RegistrationConfig(classifier="student"),
        report=ReportConfig(heading="Emoji in several hands"),
    )


def emoji_tiny() -> LifecycleParameters:
    """The same flow on 95 concepts of two groups, with a minute of training: for tests and a first try.

    Its models are hardly better than chance, so the gate does not require them to beat it.
    """
    short = TrainingConfig(epochs=1, global_batch=64)
    return LifecycleParameters(
        data=ShardingConfig(
            source=EmojiConfig(size=32, groups=("animals-nature", "food-drink"), min_concepts=8),
            split=SplitConfig(holdout_family="noto"),
        ),
        teacher=ClassificationConfig(
            model=ModelConfig(name="resnet_small", kwargs={"widths": [16, 32, 48, 64]}), image_size=32, training=short
        ),
        student=DistillationConfig(image_size=32, training=short),
        ontology=OntologyConfig(min_count=8, pairs_per_node=4),
        clip=ContrastiveConfig(
            text=TextBackboneConfig(width=64, depth=1, heads=2, context_length=16),
            policy=TonicsConfig(refresh_every_steps=8, held_out_batches=2),
            training=short,
        ),
        registration=RegistrationConfig(classifier="student", gate=GateConfig(beat_floor=False)),
        report=ReportConfig(heading="Emoji, tiny"),
    )


def fashion_mnist() -> LifecycleParameters:
    """Fashion-MNIST, a benchmark with well-known results: grey, 28 pixels, ten classes."""
    training = TrainingConfig(epochs=4, global_batch=128, optimizer=AdamWConfig(lr=2e-3))
    return LifecycleParameters(
        data=ShardingConfig(source=FashionMnistConfig(), split=SplitConfig(val_share=0.08), samples_per_shard=5000),
        teacher=ClassificationConfig(image_size=28, channels=1, training=training),
        student=DistillationConfig(
            model=ModelConfig(name="deit_micro_distilled", kwargs={"patch_size": 4}),
            image_size=28,
            channels=1,
            training=training,
        ),
        clip=ContrastiveConfig(policy=ShuffledConfig(), templates=("a photo of {a_label}",), training=training),
        registration=RegistrationConfig(classifier_name="fashion-mnist-classifier", clip_name="fashion-mnist-clip"),
        report=ReportConfig(heading="Fashion-MNIST"),
    )


def photos() -> LifecycleParameters:
    """Your own photos: a pretrained model, fine-tuned at 224 pixels, and a student with a third to a half of its
    arithmetic, both chosen for this machine; set the folder by --set data.source.folder=PATH.

    teacher.model.pretrained=null and student.model.pretrained=null train from random weights; then also set
    training.optimizer.layer_decay=null and more epochs. No dual encoder: the only captions are the class names.
    """
    models = photo_models(Machine.here())
    augment = AugmentConfig(
        crop_min_area=0.4,
        flip=0.5,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        auto_augment=RandAugmentConfig(magnitude=6.0),
    )
    loader = LoaderConfig(augment=augment)
    return LifecycleParameters(
        data=ShardingConfig(
            source=ImageFolderConfig(folder=Path("images"), caption="a photo of {a_label}"),
            split=SplitConfig(val_share=0.1, test_share=0.2),
            # Crops of 224 pixels need no larger images, and each epoch decodes every image.
            images=ImagesConfig(max_side=1024),
            # Of the few photos of a small folder, 1% is none: a run would stop at the first half-copied file.
            max_unreadable_share=0.1,
        ),
        # Folders contain bursts and frames of films; with more of them than this, accuracy measures memorization.
        leaks=LeakCheckConfig(max_pixels_share=0.01, max_near_share=0.1),
        teacher=ClassificationConfig(
            model=ModelConfig(name=models.teacher, pretrained="DEFAULT"),
            image_size=models.teacher_size,
            loader=loader,
            training=_fine_tuning(models.global_batch, epochs=10, micro_batches=models.micro_batches),
        ),
        student=DistillationConfig(
            model=ModelConfig(name=models.student, pretrained="DEFAULT"),
            distillation=DistillationLossConfig(method="soft", temperature=2.0, weight=0.7),
            image_size=models.student_size,
            loader=loader,
            training=_fine_tuning(models.global_batch, epochs=12),
        ),
        baseline=LinearProbeConfig(),
        clip=None,
        registration=RegistrationConfig(classifier_name="image-classifier", clip_name="image-clip"),
        report=ReportConfig(heading="Images of a folder"),
    )


def _fine_tuning(global_batch: int, *, epochs: int, micro_batches: int = 1) -> TrainingConfig:
    optimizer = AdamWConfig(lr=1e-3, weight_decay=0.05, layer_decay=0.85)
    return TrainingConfig(
        epochs=epochs,
        global_batch=global_batch,
        accumulation=micro_batches,
        warmup=0.1,
        # The accuracy falls in the first epochs, and passes that of the starting head in the second half.
        patience=6,
        freeze_batch_norm=True,
        optimizer=optimizer,
    )


def _photo_clip() -> ContrastiveConfig:
    """A dual encoder on captions of class names."""
    training = TrainingConfig(epochs=20, global_batch=64, optimizer=AdamWConfig(lr=1e-3))
    return ContrastiveConfig(policy=ShuffledConfig(), templates=("a photo of {a_label}",), training=training)


def _training(*, lr: float, **values: float) -> TrainingConfig:
    optimizer = AdamWConfig(lr=lr, weight_decay=0.05)
    return TrainingConfig(global_batch=64, warmup=0.1, optimizer=optimizer, **values)


@dataclass(frozen=True)
class Preset:
    """A whole run by name.

    Attributes:
        aliases: other names.
        clip: the dual encoder that `pretrain-clip` trains, if the whole run trains none.
    """

    name: str
    make: Callable[[], LifecycleParameters]
    aliases: tuple[str, ...] = ()
    clip: Callable[[], ContrastiveConfig] | None = None

    @property
    def summary(self) -> str:
        """Its data, its size and its models, in a sentence or two."""
        return " ".join((inspect.getdoc(self.make) or "").partition("\n\n")[0].split())

    def parameters(self, flow: str) -> Config:
        """The parameters of one flow."""
        whole = self.make()
        if flow == "pretrain-clip" and self.clip is not None:
            whole = whole.model_copy(update={"clip": self.clip()})
        return _subset(whole, find_flow(flow).parameter_model())


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("emoji", emoji),
        Preset("emoji-tiny", emoji_tiny),
        Preset("fashion-mnist", fashion_mnist),
        Preset("photos", photos, aliases=("image-folder",), clip=_photo_clip),
    )
}


def find_preset(name: str) -> Preset:
    """The preset with this name or alias.

    Raises:
        UnknownNameError: there is none.
    """
    names = PRESETS | {alias: preset for preset in PRESETS.values() for alias in preset.aliases}
    if name not in names:
        raise UnknownNameError("preset", name, names)
    return names[name]


def default_parameters(model: type[ParametersT]) -> ParametersT:
    """The default parameters of a flow, on a schedule and in the shell."""
    return _subset(PRESETS[DEFAULT_PRESET].make(), model)


def _subset(whole: LifecycleParameters, model: type[ParametersT]) -> ParametersT:
    """A `model` from the fields it shares with a whole run; its other fields have their defaults."""
    shared = set(model.model_fields) & set(type(whole).model_fields)
    return model(**{name: getattr(whole, name) for name in shared})
