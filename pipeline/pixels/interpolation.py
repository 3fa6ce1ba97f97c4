"""The interpolations with which images are resized; both are antialiased."""

from __future__ import annotations

from typing import Literal

Interpolation = Literal["bilinear", "bicubic"]
