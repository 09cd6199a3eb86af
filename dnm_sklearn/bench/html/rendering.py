"""From templates to pages that hold everything, and may run their own script only."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dnm_sklearn import __version__
from dnm_sklearn._utils.safe_text import visible


def render(template: str, script: str, **values: Any) -> str:
    """Fill in a template of this package, with the style sheet and a script of it."""
    environment = Environment(
        loader=PackageLoader("dnm_sklearn.bench.html", ""),
        # Every text of a record is escaped where it enters the page; a forgotten name is an error.
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, code = _own_file("report.css"), _own_file(script)
    return environment.get_template(template).render(
        version=__version__,
        style=style,
        script=code,
        policy=_policy(style, code),
        **values,
    )


def _finalize(value: Any) -> Any:
    """Clean a value that enters the template of what HTML may not hold; plots stay as they are."""
    return value if isinstance(value, Markup) else visible(value)


def _policy(style: str, script: str) -> Markup:
    """Say what the page may use: its style sheet and script by their digests, and its images."""
    digests = []
    for text in (style, script):
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        digests.append(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")
    # Neither a form nor a base address of a text that slipped in could lead anywhere.
    return Markup(
        f"default-src 'none'; img-src data:; style-src {digests[0]}; script-src {digests[1]}; "
        "base-uri 'none'; form-action 'none'"
    )


def _own_file(name: str) -> Markup:
    """Read a file of this package, which needs no escaping."""
    return Markup((resources.files("dnm_sklearn.bench.html") / name).read_text(encoding="utf-8"))
