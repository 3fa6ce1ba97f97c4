"""The configuration of the optimisers; optim.py builds them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config import Config, added


def layer_decay_field() -> Any:
    """The field `layer_decay` of an optimiser."""
    return added(
        None,
        gt=0,
        le=1,
        description="Layer-wise learning rates, for fine-tuning: a layer that is d layers below the head is trained "
        "with lr * layer_decay**d, and the head with lr. 0.65 to 0.9 keeps the first layers near their pretrained "
        "weights. null: one rate for all layers.",
    )


class AdamWConfig(Config):
    """AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = Field("adamw", description="AdamW: Adam with decoupled weight decay.")
    lr: float = Field(1e-3, gt=0, le=10, description="Peak learning rate, reached after warmup.")
    weight_decay: float = Field(
        0.05, ge=0, le=10, description="Decoupled weight decay; not applied to biases, norms and tokens."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay rate of the running mean of gradients.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay rate of the running mean of squared gradients.")
    eps: float = Field(1e-8, gt=0, le=1, description="Epsilon added to the denominator, for numerical stability.")

    layer_decay: float | None = layer_decay_field()


class SGDConfig(Config):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = Field("sgd", description="SGD with momentum.")
    lr: float = Field(0.1, gt=0, le=100, description="Peak learning rate, reached after warmup.")
    weight_decay: float = Field(
        1e-4, ge=0, le=10, description="Weight decay (L2 penalty); not applied to biases, norms and tokens."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum factor. 0: no momentum.")
    nesterov: bool = Field(True, description="Use Nesterov momentum.")

    layer_decay: float | None = layer_decay_field()


class LambConfig(Config):
    """LAMB: Adam with steps in proportion to the parameters (You 2020; Wightman 2021, "ResNet strikes back")."""

    kind: Literal["lamb"] = Field("lamb", description="LAMB, for batches of thousands: 5e-3 for 2048.")
    lr: float = Field(5e-3, gt=0, le=10, description="Peak learning rate, reached after warmup.")
    weight_decay: float = Field(0.02, ge=0, le=10, description="Weight decay; not applied to biases, norms and tokens.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay rate of the running mean of gradients.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay rate of the running mean of squared gradients.")
    eps: float = Field(1e-6, gt=0, le=1, description="Epsilon added to the denominator, for numerical stability.")

    layer_decay: float | None = layer_decay_field()


class MuonConfig(Config):
    """Muon for the hidden matrices, AdamW for all else (Jordan 2024; scaled as in Liu 2025)."""

    kind: Literal["muon"] = Field(
        "muon",
        description="Muon for matrices below the head; AdamW for convolutions, embeddings, the head, norms and biases.",
    )
    lr: float = Field(1e-3, gt=0, le=10, description="Peak learning rate of both, reached after warmup.")
    weight_decay: float = Field(
        0.05, ge=0, le=10, description="Decoupled weight decay of both; not applied to biases, norms and tokens."
    )
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's Nesterov momentum.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay rate of the running mean of gradients.")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's decay rate of the running mean of squared gradients.")
    eps: float = Field(1e-8, gt=0, le=1, description="AdamW's epsilon, added to the denominator.")

    layer_decay: float | None = layer_decay_field()


class RMSpropConfig(Config):
    """RMSprop with momentum, with the values of Szegedy 2016 (Inception v3), section 8."""

    kind: Literal["rmsprop"] = Field("rmsprop", description="RMSprop with momentum, as Inception v3 and v4.")
    lr: float = Field(0.045, gt=0, le=10, description="Peak learning rate, reached after warmup.")
    weight_decay: float = Field(
        4e-5, ge=0, le=10, description="Weight decay (L2 penalty); not applied to biases, norms and tokens."
    )
    decay: float = Field(0.9, ge=0, lt=1, description="Decay rate of the running mean of squared gradients.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum factor. 0: no momentum.")
    eps: float = Field(1.0, gt=0, le=1, description="Epsilon added to the denominator, outside the square root.")

    layer_decay: float | None = layer_decay_field()


Optimizer = AdamWConfig | SGDConfig | LambConfig | MuonConfig | RMSpropConfig
OptimizerConfig = Annotated[Optimizer, Field(discriminator="kind")]
