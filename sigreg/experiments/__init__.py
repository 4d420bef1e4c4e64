"""The book's experiments, one module each; :mod:`sigreg.reproduce` says how to write one."""
