"""Minibatches: whole epochs, the same again for the same seed, and no hidden label looked at."""

import pytest
import torch
from toys import data, pictures, small_batches

from sigreg.lab.batches import Minibatches, ViewBatches, balanced_draw


def test_minibatches_cover_every_epoch_and_repeat():
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    batches = Minibatches(x, y, batch_size=5, epochs=3, noise_dim=2, seed=4)
    first, second = list(batches), list(batches)
    assert len(first) == len(batches) == 6
    for epoch in range(3):
        seen = torch.cat([labels for _, labels, _ in first[2 * epoch : 2 * epoch + 2]])
        assert sorted(seen.tolist()) == list(range(10))
    for one, two in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert torch.equal(one[0][:, 0].long(), one[1])
    other = next(iter(Minibatches(x, y, batch_size=5, epochs=3, noise_dim=2, seed=5)))
    assert not torch.equal(other[2], first[0][2])


def test_batches_visit_every_image_once_an_epoch_and_repeat():
    images = pictures(20)
    batches = ViewBatches(images, batch_size=5, epochs=2, views=2, small_views=1, seed=1)
    found = list(batches)
    assert len(found) == len(batches) == 8
    for epoch in (found[:4], found[4:]):
        assert sorted(torch.cat([batch[-2] for batch in epoch]).tolist()) == list(range(20))
    assert [int(batch[-1][0]) for batch in found] == list(range(8))
    assert found[0][0].shape == (5, 1, 28, 28) and found[0][2].shape == (5, 1, 14, 14)
    for one, two in zip(found, batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    labels = torch.arange(20) % 3
    for *_, label, _ in ViewBatches(images, labels, batch_size=7, epochs=1):
        assert set(label.tolist()) <= {0, 1, 2}
    with pytest.raises(ValueError, match="batch_size"):
        ViewBatches(images, batch_size=21, epochs=1)
    with pytest.raises(ValueError, match="view"):
        ViewBatches(images, batch_size=2, epochs=1, views=0)


def test_balanced_draw():
    labels = torch.randint(3, (200,), generator=torch.Generator().manual_seed(0))
    places = balanced_draw(labels, 30, torch.Generator().manual_seed(1))
    assert len(set(places.tolist())) == 30 and labels[places].bincount().tolist() == [10, 10, 10]
    assert torch.equal(places, balanced_draw(labels, 30, torch.Generator().manual_seed(1)))
    assert not torch.equal(places, balanced_draw(labels, 30, torch.Generator().manual_seed(2)))


def test_batches_repeat_and_never_look_at_hidden_labels():
    batches = small_batches(steps=3)
    first, second = list(batches), list(batches)
    assert len(batches) == len(first) == 3
    hidden = torch.arange(30) % 3
    hidden[9:] = torch.randint(3, (21,), generator=torch.Generator().manual_seed(5))
    for a, b, c in zip(first, second, small_batches(steps=3, labels=hidden), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert all(torch.equal(x, y) for x, y in zip(a, c, strict=True))
    assert not torch.equal(first[0][0], first[1][0]) and first[2][-1].tolist() == [2] * 6


def test_batches_without_unlabelled_images():
    _, _, weak, strong, _ = next(iter(small_batches(unlabelled=0)))
    assert weak.shape == strong.shape == (0, 1, 28, 28)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match=r"batch_size must lie in 1\.\.48"):
        Minibatches(*data(), batch_size=49, epochs=1, noise_dim=2, seed=1)
    with pytest.raises(ValueError, match="multiple"):
        balanced_draw(torch.arange(10) % 3, 4, torch.Generator())
    with pytest.raises(ValueError, match="asks for"):
        balanced_draw(torch.arange(9) % 3, 12, torch.Generator())
    with pytest.raises(TypeError, match="labels"):
        balanced_draw(torch.zeros(4), 2, torch.Generator())
    with pytest.raises(ValueError, match="steps"):
        small_batches(steps=0)
