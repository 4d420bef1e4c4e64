"""Random views of pictures: what each change does and leaves alone."""

import math

import pytest
import torch
from toys import pictures, seeded

from sigreg.lab.views import BACKGROUND, random_views

STILL = {"scale": (1, 1), "ratio": 1, "flip": 0, "degrees": 0, "intensity": 0}


def test_a_flip_is_a_flip_and_half_of_them_happen():
    images = pictures(400)
    every = random_views(images, seeded(), **{**STILL, "flip": 1})
    torch.testing.assert_close(every, images.flip(3), atol=1e-4, rtol=0)
    views = random_views(images, seeded(), **{**STILL, "flip": 0.5})
    flipped = (views - images).abs().amax((1, 2, 3)) > 1e-3
    assert abs(flipped.float().mean() - 0.5) < 0.1
    torch.testing.assert_close(views[flipped], images[flipped].flip(3), atol=1e-4, rtol=0)


def test_intensity_scales_the_ink_and_leaves_the_background():
    images = pictures()
    images[:, :, :5] = BACKGROUND
    views = random_views(images, seeded(), **{**STILL, "intensity": 0.4})
    torch.testing.assert_close(views[:, :, :5], images[:, :, :5])
    gain = (views - BACKGROUND)[:, 0, 6:] / (images - BACKGROUND)[:, 0, 6:]
    per_image = gain.flatten(1)
    torch.testing.assert_close(per_image, per_image[:, :1].expand_as(per_image), atol=1e-3, rtol=1e-3)
    assert 0.6 <= per_image.min() and per_image.max() <= 1.4 and per_image[:, 0].std() > 0.1


def test_a_rotation_turns_a_radial_picture_into_itself_and_moves_others():
    axis = torch.linspace(-1, 1, 28)
    radial = torch.exp(-4 * (axis[:, None] ** 2 + axis**2)).expand(8, 1, 28, 28)
    radial = BACKGROUND + radial - radial.min()
    turned = random_views(radial, seeded(), **{**STILL, "degrees": 180})
    inside = (axis[:, None] ** 2 + axis**2) < 0.8
    assert ((turned - radial).abs() * inside).max() < 0.03
    one = torch.full((64, 1, 29, 29), BACKGROUND)
    one[:, :, 14, 20:24] += 5.0
    ink = random_views(one, seeded(), **{**STILL, "degrees": 30}) - BACKGROUND
    rows, columns = torch.arange(29.0)[:, None] - 14, torch.arange(29.0) - 14
    total = ink.sum((1, 2, 3))
    angle = torch.atan2((ink[:, 0] * rows).sum((1, 2)) / total, (ink[:, 0] * columns).sum((1, 2)) / total)
    assert angle.abs().max() <= math.radians(30) + 0.02 and angle.std() > math.radians(10)


def test_a_crop_stays_inside_and_keeps_the_share_of_area_it_names():
    """On a picture whose value is its x or y coordinate, a view shows which window was cut."""
    axis = (torch.arange(28) + 0.5) / 14 - 1
    for picture in (axis.expand(28, 28), axis[:, None].expand(28, 28)):
        images = (BACKGROUND + 2 + picture).expand(200, 1, 28, 28)
        views = random_views(images, seeded(), **{**STILL, "scale": (0.25, 0.25), "size": 14}) - BACKGROUND - 2
        assert views.min() >= -1 - 1e-3 and views.max() <= 1 + 1e-3
        span = (views.amax((1, 2, 3)) - views.amin((1, 2, 3))) * 14 / 13  # of 14 pixels' centres
        torch.testing.assert_close(span, torch.full((200,), 1.0), atol=0.02, rtol=0)  # half the side of [-1, 1]
        assert views.mean((1, 2, 3)).std() > 0.2  # uniform on [-1/2, 1/2]: 0.29
    images = (BACKGROUND + 2 + axis.expand(28, 28)).expand(400, 1, 28, 28)
    wide = random_views(images, seeded(), **{**STILL, "scale": (0.25, 0.25), "ratio": 2, "size": 14})
    span = (wide.amax((1, 2, 3)) - wide.amin((1, 2, 3))) * 14 / 13
    assert span.min() > 0.69 and span.max() < 1.43 and span.std() > 0.1  # sqrt(1/2) .. sqrt(2), times 1


def test_views_depend_on_their_generator_alone():
    images = pictures()
    assert torch.equal(random_views(images, seeded(3)), random_views(images, seeded(3)))
    assert not torch.equal(random_views(images, seeded(3)), random_views(images, seeded(4)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scale": (0.0, 1)}, "scale"),
        ({"scale": (0.5, 0.4)}, "scale"),
        ({"ratio": 0.5}, "ratio"),
        ({"flip": 1.5}, "flip"),
        ({"intensity": 1.0}, "intensity"),
    ],
)
def test_views_refuse(setting, message):
    with pytest.raises(ValueError, match=message):
        random_views(pictures(), seeded(), **setting)
    with pytest.raises(TypeError, match="images"):
        random_views(pictures().long(), seeded())
