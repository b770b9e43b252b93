"""Pages that need nothing else, neither other files nor a network."""

import base64
import re

import jinja2
import markupsafe

from trainloop.checks import printable

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("trainloop.comparison", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    # Names may have control characters. What is markup already stays markup.
    finalize=lambda value: type(value)(printable(value)) if isinstance(value, str) else value,
)


def _breakable(text):
    """A name whose lines may break behind its separators."""
    return markupsafe.Markup(re.sub("(:|,|=)", r"\1<wbr>", str(markupsafe.escape(text))))


_TEMPLATES.filters["breakable"] = _breakable


def render(template, **values):
    """The text of a page."""
    return _TEMPLATES.get_template(f"{template}.html.jinja").render(**values)


def images(pictures):
    """{name: PNG as text for a data URL}, without those that are None."""
    return {
        name: base64.b64encode(p.png(dpi=150, transparent=True)).decode()
        for name, p in pictures.items()
        if p is not None
    }
