"""A web server on loopback that serves one file, well or badly: the tests' stand-in for those that models come from."""

import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from socketserver import BaseRequestHandler, ThreadingTCPServer


class FileServer:
    """Serves `content` at every path.

    Attributes
    ----------
    url : str
    requests : list of (path, headers)
    ranges : bool
        Whether parts can be asked for.
    length : int or None
        What it says the file's length is; None says nothing.
    cut : list of int
        After how many bytes of the body the connections are cut, one for each request, then no more.
    wrong : int
        By how much the parts it sends begin elsewhere than asked.
    status : list of int
        What it answers instead, one for each request, then no more; 0 is nothing at all.
    location : str or None
        Where it sends everybody.
    pause : threading.Event or None
        It waits for this before the last byte.
    """

    def __init__(self, content):
        self.content, self.length, self.etag = content, len(content), '"1"'
        self.requests, self.cut, self.status = [], [], []
        self.ranges, self.wrong, self.location, self.pause = True, 0, None, None
        self.pages = {}  # path -> the body of a page that is there instead of the file
        self.refusals = {}  # path -> what it answers there, and the reason in the hub's own header

    def answer(self, handler):
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append((handler.path, headers))
        if self.status:
            status = self.status.pop(0)
            return handler.send_error(status) if status else None
        if self.location:
            handler.send_response(302)
            handler.send_header("Location", self.location)
            return handler.end_headers()
        place = handler.path.partition("?")[0]
        if place in self.refusals:
            status, why = self.refusals[place]
            handler.send_response(status)
            handler.send_header("X-Error-Code", why)
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        page = self.pages.get(place)
        body, start = self.content if page is None else page, 0
        asked = headers.get("range", "")
        if asked and page is None and self.ranges and headers.get("if-range", self.etag) == self.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-")) + self.wrong
            if start >= len(body):
                return handler.send_error(416)
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{self.length}")
        else:
            handler.send_response(200)
        length = len(body) if page is not None else self.length
        if length is not None:
            handler.send_header("Content-Length", str(length - start))
        handler.send_header("ETag", self.etag)
        handler.end_headers()
        stop = min(len(body), start + self.cut.pop(0)) if self.cut else len(body)
        if self.pause:
            handler.wfile.write(body[start : stop - 1])
            handler.wfile.flush()
            self.pause.wait(60)
            start = stop - 1
        handler.wfile.write(body[start:stop])


@contextmanager
def serve(content):
    """A running FileServer."""
    server = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request, client_address):  # whoever asked has left
            pass

    with Quiet(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            if server.pause:
                server.pause.set()
            http.shutdown()
            thread.join()


@contextmanager
def saying(*answers):
    """A server that answers each connection with the next of these, iterables of bytes, whatever is asked; its url."""
    left, lines = iter(answers), []

    class Handler(BaseRequestHandler):
        def handle(self):
            lines.append(self.request)
            self.request.recv(1 << 16)
            for piece in next(left):
                self.request.sendall(piece)

    class Quiet(ThreadingTCPServer):
        def handle_error(self, request, client_address):  # whoever asked has left
            pass

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            for line in lines:
                with suppress(OSError):  # closed
                    line.shutdown(SHUT_RDWR)
