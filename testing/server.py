"""A web server of one's own for the downloads' tests: honest, or with one of the faults of real ones."""

import base64
import contextlib
import dataclasses
import http.server
import threading
import time
from collections.abc import Iterator


@dataclasses.dataclass
class File:
    """What the server has under a path, and how it serves it."""

    content: bytes
    etag: str | None = '"1"'
    ranges: bool = True  # False: answers 200 and the whole file to a range request
    status: int | None = None  # answer with it, whatever is asked
    drop: int | None = None  # close the connection after so many bytes
    drops: int = 10**9  # so many times; honest afterwards
    claims: int | None = None  # the Content-Length and total stated
    chunked: bool = False  # no Content-Length: the whole file, and a mark at its end
    endless: bool = False  # with `chunked`: the content again and again
    location: str | None = None  # where the answer sends the client
    pause: float = 0.0  # seconds before every 1,000 bytes
    login: tuple[str, str] | None = None  # name and password of those who may
    agent: str = ""  # what the name of a program begins with that may log in
    kind: str = "application/octet-stream"


class Server:
    """`files` may be changed at any time; `requests` are those that came: (path, headers), over `connections`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.files: dict[str, File] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.connections: set[tuple[str, int]] = set()  # the clients' addresses
        self.hang_up = threading.Event()
        self.sending: set[threading.Thread] = set()

    def stop_sending(self) -> None:
        """End the answers under way in their midst."""
        self.hang_up.set()
        while self.sending:
            time.sleep(0.01)
        self.hang_up.clear()

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of the requests for `path`."""
        return [headers for asked, headers in self.requests if asked == path]


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server that runs while the block does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            server.requests.append((self.path, dict(self.headers)))
            server.connections.add(self.client_address)
            file = server.files.get(self.path)
            if file is None:
                return self.answer(404)
            if file.location:
                return self.answer(302, {"Location": file.location})
            if file.status:
                return self.answer(file.status)
            if not self.headers.get("User-Agent", "").startswith(file.agent):
                return self.answer(403)
            if file.login:
                given = self.headers.get("Authorization", "")
                if given != "Basic " + base64.b64encode(":".join(file.login).encode()).decode():
                    return self.answer(401, {"WWW-Authenticate": 'Basic realm="test"'})
            return self.send_chunks(file) if file.chunked else self.send(file)

        def answer(self, status, headers=None):
            self.send_response(status)
            for name, value in {"Content-Length": "0", **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()

        def send(self, file):
            start, size = 0, len(file.content) if file.claims is None else file.claims
            asked = self.headers.get("Range")
            if asked and file.ranges and self.headers.get("If-Range", file.etag) == file.etag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= size:
                    return self.answer(416, {"Content-Range": f"bytes */{size}"})
            body = file.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            if file.etag:
                self.send_header("ETag", file.etag)
            self.send_header("Content-Type", file.kind)
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            if file.drop is not None and file.drops > 0:
                file.drops -= 1
                body = body[: file.drop]
            server.sending.add(threading.current_thread())
            try:
                with contextlib.suppress(ConnectionError):
                    for i in range(0, len(body), 1000 if file.pause else 1 << 20):
                        if server.hang_up.wait(file.pause):
                            self.close_connection = True
                            return None
                        self.wfile.write(body[i : i + (1000 if file.pause else 1 << 20)])
            finally:
                server.sending.discard(threading.current_thread())
            if len(body) != size - start:
                self.close_connection = True
            return None

        def send_chunks(self, file):
            self.send_response(200)
            self.send_header("Content-Type", file.kind)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            body = file.content if file.drop is None else file.content[: file.drop]
            chunk = b"%x\r\n%s\r\n" % (len(body), body)
            with contextlib.suppress(ConnectionError):
                self.wfile.write(chunk)
                while file.endless:
                    self.wfile.write(chunk)
                if file.drop is None:
                    self.wfile.write(b"0\r\n\r\n")
            self.close_connection = file.drop is not None

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        web.daemon_threads = True
        server = Server(web.server_address[1])
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            web.shutdown()
            thread.join()
