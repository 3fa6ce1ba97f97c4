from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.explain.drawing import HEAT, Panel, draw_frame, enlarge, overlay, png, sheet, signed_picture, to_picture


def test_where_a_map_is_zero_the_image_shows_in_grey_and_where_it_is_one_the_heat_covers_it() -> None:
    white = np.full((8, 8, 3), 255, np.uint8)
    heat = np.zeros((2, 2))
    heat[1, 1] = 1.0
    drawn = overlay(white, heat)
    assert drawn.shape == (8, 8, 3)
    np.testing.assert_allclose(drawn[0, 0], [255, 255, 255], atol=4)  # interpolation swings a little
    hottest = 255 * (0.8 * np.array(HEAT(1.0)[:3]) + 0.2)
    np.testing.assert_allclose(drawn[7, 7], hottest, atol=4)


def test_a_map_gets_darker_the_higher_it_is_on_bright_and_on_dark_images() -> None:
    ramp = np.linspace(0, 1, 16)[None]
    drawn = overlay(np.full((4, 64, 3), 255, np.uint8), ramp).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(drawn[0]) <= 0.5).all()
    black = overlay(np.zeros((4, 64, 3), np.uint8), ramp)
    assert np.ptp(black[0].astype(int), axis=0).max() > 80  # the colour tells where lightness does not


def test_upper_left_of_the_map_lies_on_the_upper_left_of_the_picture() -> None:
    heat = np.zeros((4, 6))
    heat[0, 0] = 1.0
    red = overlay(np.full((40, 60, 3), 255, np.uint8), heat)
    darkest = np.unravel_index(red.sum(axis=2).argmin(), red.shape[:2])
    assert max(darkest) < 10


def test_grey_and_colour_images_become_rgb() -> None:
    grey, colour = torch.full((1, 2, 3), 7, dtype=torch.uint8), torch.zeros(3, 2, 3, dtype=torch.uint8)
    colour[1] = 9
    assert to_picture(grey).shape == to_picture(colour).shape == (2, 3, 3)
    assert to_picture(grey)[1, 2].tolist() == [7, 7, 7]
    assert to_picture(colour)[1, 2].tolist() == [0, 9, 0]


def test_values_of_both_signs_lie_around_grey() -> None:
    drawn = signed_picture(torch.tensor([[[0.0, -2.0], [1.0, 4.0]]]))
    assert drawn[:, :, 0].tolist() == [[128, 64], [159, 255]]
    assert (signed_picture(torch.zeros(3, 2, 2)) == 128).all()


def test_a_frame_lies_inside_its_part() -> None:
    drawn = draw_frame(np.zeros((40, 40, 3), np.uint8), 10, 20, 30, 40)
    rows, columns = drawn.any(axis=2).nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 29, 20, 39)
    assert not drawn[12:28, 22:38].any()


def test_a_small_picture_is_enlarged_and_a_large_one_left() -> None:
    assert enlarge(np.zeros((10, 20, 3), np.uint8), 100).shape == (50, 100, 3)
    assert enlarge(np.zeros((300, 200, 3), np.uint8), 100).shape == (300, 200, 3)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (6, 6), (9, 6)])
def test_a_sheet_shows_every_panel(count: int, columns: int) -> None:
    colours = [(int(255 * place / 9), 40, 90) for place in range(count)]
    panels = [Panel(f"$panel$ {colour[0]}", np.full((16, 16, 3), colour, np.uint8)) for colour in colours]
    drawn = np.asarray(Image.open(io.BytesIO(sheet(panels, heading="a <heading> $1$", caption="words " * 40))))
    assert all((drawn[:, :, :3] == colour).all(axis=2).any() for colour in colours)
    assert columns * 320 < drawn.shape[1] < columns * 320 + 200
    assert np.asarray(Image.open(io.BytesIO(png(panels[0].picture)))).shape == (16, 16, 3)
