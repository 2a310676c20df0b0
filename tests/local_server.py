"""A server on this machine for tests of downloads: each path has a page, a function that answers as it likes."""

import contextlib
import http.server
import threading
from collections.abc import Iterator


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as `server.pages[path]` says; `server.requests` lists each request as (path, its Range)."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        page = self.server.pages.get(self.path)
        with contextlib.suppress(ConnectionError):
            if page:
                page(self)
            else:
                self.send_error(404)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def local_server(monkeypatch) -> Iterator[http.server.ThreadingHTTPServer]:
    """Runs a server on this machine that answers from `pages`, within this context."""
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as local:
        local.daemon_threads, local.block_on_close = True, False
        local.pages, local.requests, local.is_over = {}, [], threading.Event()
        local.url = f"http://127.0.0.1:{local.server_port}"
        threading.Thread(target=local.serve_forever, args=(0.02,), daemon=True).start()
        yield local
        local.is_over.set()  # frees the answers that hang
        local.shutdown()


def serve(body, *, ranges=True, most=None, status=200, hang=False, length=True, etag=None):
    """Makes a page that gives a body: at most `most` bytes of it an answer, then it hangs or hangs up.

    With an etag, it gives all of the body to who asks for the rest of another version (If-Range).
    """

    def page(handler):
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1]) if ranges else 0
        if handler.headers.get("If-Range", etag) != etag:
            start = 0
        handler.send_response(206 if start else status)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if etag:
            handler.send_header("ETag", etag)
        if length:
            handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start:][:most])
        if hang:
            handler.server.is_over.wait(10)

    return page


def answer(status, headers=(), body=b""):
    """Makes a page that gives a status, headers and a body as they are written here."""

    def page(handler):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return page
