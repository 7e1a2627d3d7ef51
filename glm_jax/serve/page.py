"""The pages for people, and what a browser may do with it."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from starlette.responses import Response

STYLES = "pages.css"


class Page:
    """One document with everything in it."""

    def __init__(self, name: str) -> None:
        """Reads it from the package, and puts the styles of all pages where it names their file."""
        files = resources.files("glm_jax.serve")
        html, styles = (files.joinpath(file).read_text("utf-8") for file in (name, STYLES))
        assert html.count(f"/* {STYLES} */") == 1, name
        html = html.replace(f"/* {STYLES} */", styles.strip())
        self._html = html.encode()
        self._headers = {
            "Content-Security-Policy": content_security_policy(html),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }

    def response(self) -> Response:
        """The page."""
        return Response(self._html, headers=self._headers, media_type="text/html; charset=utf-8")


def content_security_policy(html: str) -> str:
    """Allows the page's own script and style, its requests to this server, and nothing else."""

    def hashes(element: str) -> str:
        contents = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
        digests = [hashlib.sha256(content.encode()).digest() for content in contents]
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
