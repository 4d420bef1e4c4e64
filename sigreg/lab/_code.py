"""Python source without what cannot change a number. Needs no torch, so that the book's tools can load it alone."""

import ast
import io
import tokenize


def code_only(source: str) -> str:
    """Python ``source`` without comments, docstrings and blank lines.

    >>> code_only('x = 1  # one' + chr(10) * 3 + 'y = "#"')
    'x = 1\\ny = "#"'
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node):
            for row in range(node.body[0].lineno, node.body[0].end_lineno + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())
