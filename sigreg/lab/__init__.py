"""The book's laboratory: data, networks, training, stored runs and figures. It needs the extra `sigreg[book]`."""
