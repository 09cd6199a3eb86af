"""A server on loopback that speaks the Hugging Face hub's protocol, as far as downloads need it."""

import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Files by (repository, name), what was asked for, and how the next answers go wrong."""

    def __init__(self):
        self.files = {}
        # Pairs of "HEAD" or "GET" and the file's name.
        self.asked = []
        # Bytes after which the next answer to GET breaks off, one entry for each answer.
        self.cuts = []
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _answer(self):
        match = re.fullmatch(r"/(.+?)/resolve/[^/]+/(.+)", self.path)
        content = self.hub.files.get(match.groups()) if match else None
        self.hub.asked.append((self.command, match[2] if match else self.path))
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return

        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            cut = self.hub.cuts.pop(0) if self.hub.cuts else len(content)
            self.wfile.write(content[start : start + cut])
            self.close_connection = cut < len(content)


@contextmanager
def serving(hub):
    """Serve a hub's files on a free port of loopback."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True, args=(0.01,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
