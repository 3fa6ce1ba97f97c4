"""The teacher and the student of the preset `photos`, chosen from what the machine has."""

from __future__ import annotations

from dataclasses import dataclass

_GIB = 1 << 30


@dataclass(frozen=True)
class Machine:
    """What a training has: bytes of memory, number of GPUs, and bytes of memory of the smallest GPU."""

    memory: int
    gpus: int = 0
    gpu_memory: int = 0

    @classmethod
    def here(cls) -> Machine:
        """This machine; a GPU that PyTorch cannot use does not count."""
        from pipeline.machine import gpu_memory_bytes, memory_bytes

        memories = gpu_memory_bytes()
        return cls(memory_bytes(), len(memories), min(memories, default=0))


@dataclass(frozen=True)
class PhotoModels:
    """Two models of the zoo that have pretrained weights, the sides of their input images, and the batch size.

    Attributes:
        micro_batches: number of micro-batches of the teacher's batch.
    """

    teacher: str
    teacher_size: int
    student: str
    student_size: int
    global_batch: int
    micro_batches: int = 1


def photo_models(machine: Machine) -> PhotoModels:
    """The most accurate models that the machine fine-tunes on a few thousand photos within about an hour.

    Without a GPU both are EfficientNet-Lite0, whose weights are in a Python package: no download. The student sees
    images of 128 pixels, a third of the teacher's arithmetic. With one, both have torchvision's weights; ResNet-50 is
    for GPUs with less than 12 GiB.
    """
    if machine.gpus == 0:
        batch = 32 if machine.memory >= 4 * _GIB else 16
        # 16 images of 224 pixels at once: of 32, a step takes 1.15 times as long and 1.2 GB more memory.
        return PhotoModels("efficientnet_lite0", 224, "efficientnet_lite0", 128, batch, micro_batches=batch // 16)
    if machine.gpu_memory < 12 * _GIB:
        return PhotoModels("resnet50", 224, "resnet18", 224, 32)
    return PhotoModels("regnet_y_3_2gf", 224, "resnet18", 224, 64)
