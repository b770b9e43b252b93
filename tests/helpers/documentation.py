"""Runs the code blocks of a page."""

import linecache
import re


def run_blocks(path, needs=None):
    """What the code blocks of a page define, run in order.

    Args:
        path: of the page.
        needs: instead of the blocks that need nothing else those that begin with "```python needs=<this library>".
    """
    fence = "```python" if needs is None else f"```python needs={needs}"
    names = {"__name__": path.stem}
    for i, block in enumerate(re.findall(rf"{fence}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)):
        name = f"{path.name}, block {i} {needs or ''}"
        linecache.cache[name] = len(block), None, block.splitlines(keepends=True), name  # autograph reads the source
        exec(compile(block, name, "exec"), names)
    return names
