"""The book's experiments, one module each; :mod:`sigreg.lab.reproduce` says how to write one."""
