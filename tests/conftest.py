"""What all tests share: a generator, the style of figures; those marked ``cuda`` are skipped where there is no GPU."""

import pytest
import torch


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def book_style():
    import matplotlib.pyplot as plt  # here, for most tests draw nothing

    from sigreg.lab import figures

    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")
