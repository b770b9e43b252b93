"""Runs the code blocks of a page."""

import linecache
import re


def run_blocks(path):
    """What the code blocks of a page define, run in order."""
    names = {"__name__": path.stem}
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)):
        name = f"{path.name}, block {i}"
        linecache.cache[name] = len(block), None, block.splitlines(keepends=True), name  # autograph reads the source
        exec(compile(block, name, "exec"), names)
    return names
