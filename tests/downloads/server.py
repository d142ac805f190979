"""A server on this machine that misbehaves as real ones do, and sources that point to it."""

import hashlib
import io
import re
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cissod_bench.downloads.catalog import Download, Item, Source


@dataclass
class Behaviour:
    """What the server does. `cut_after`: bytes of an answer after which it closes; `slow`: seconds between blocks."""

    files: dict[str, bytes]
    ranges: bool = True
    cut_after: int | None = None
    slow: float = 0.0
    block: int = 2**14
    asked: list[str | None] = field(default_factory=list)
    sent: int = 0


def _handler(behaviour: Behaviour) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            behaviour.asked.append(wanted)
            content = behaviour.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and behaviour.ranges else 0  # type: ignore[index]
            if start >= len(content) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            body = content[start:]
            if wanted and behaviour.ranges:
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            body = body[: behaviour.cut_after]
            for at in range(0, len(body), behaviour.block):
                try:
                    self.wfile.write(body[at : at + behaviour.block])
                except OSError:
                    return
                behaviour.sent += len(body[at : at + behaviour.block])
                time.sleep(behaviour.slow)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Serve within the block; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(behaviour))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def weights(address: str, content: bytes, **fields: Any) -> Source:
    """A source of one file as it is."""
    fields = {"checksum": sha256(content), "size": len(content)} | fields
    item = Item("weights/net.pth", size=fields["size"], checksum=fields["checksum"])
    return source(Download(f"{address}/net.pth", items=(item,), **fields))


def source(*downloads: Download, **fields: Any) -> Source:
    return Source("thing", "a thing", "https://example.org", "free", downloads, **fields)


def silent(_: str) -> Any:
    """No progress bar."""
    return nullcontext()


def zipped(entries: dict[str, bytes], *, links: tuple[str, ...] = ()) -> bytes:
    """A zip archive, in which some entries say that they are symbolic links."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if name in links:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, content)
    return out.getvalue()
