"""tqdm's bar where tqdm is installed; on a bare machine the same calls, and nothing shown."""

try:
    from tqdm import tqdm
except ModuleNotFoundError:

    class tqdm:
        def __init__(self, iterable=(), **settings):
            self.iterable = iterable

        def __iter__(self):
            return iter(self.iterable)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count=1):
            pass


__all__ = ["tqdm"]
