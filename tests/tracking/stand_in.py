"""A web server on this machine that is no MLflow, or one that a proxy stands before."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HTML = b"<html><body><h1>Sign in</h1></body></html>"


@contextmanager
def stand_in(answer):
    """A server that gives one answer to all: its status, and JSON or a page. Yields its port.

    Args:
        answer: from a request's method and path to a status and the content, a dictionary or a page's bytes.
    """

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = answer(self.command, self.path.split("?")[0])
            is_page = isinstance(content, bytes)
            body = content if is_page else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if is_page else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
