"""A certificate authority for tests, and a proxy that terminates TLS before a server on a unix socket."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_PIECE = 65_536
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: its own certificate, and the certificate for ``localhost`` that it has issued."""

    certificate: Path
    localhost: Path
    localhost_key: Path

    @classmethod
    def make(cls, directory: Path) -> Authority:
        """Make one in ``directory``, with the ``openssl`` command."""
        directory.mkdir(parents=True)
        authority, key = directory / "authority.pem", directory / "authority.key"
        localhost, localhost_key = directory / "localhost.pem", directory / "localhost.key"
        _openssl("/CN=a test's authority", authority, key, "basicConstraints=critical,CA:TRUE")
        issuer = ("-CA", str(authority), "-CAkey", str(key), "-addext", "subjectAltName=DNS:localhost")
        _openssl("/CN=localhost", localhost, localhost_key, "basicConstraints=CA:FALSE", *issuer)
        return cls(authority, localhost, localhost_key)


def _openssl(subject: str, certificate: Path, key: Path, extension: str, *more: str) -> None:
    files = ("-keyout", str(key), "-out", str(certificate))
    command = ("openssl", "req", "-x509", *_NEW_KEY, *files, "-subj", subject, "-addext", extension, *more)
    subprocess.run(command, check=True, capture_output=True, timeout=30)


class TlsProxy:
    """Listens on a port of localhost while the block runs, and forwards each connection to ``target``."""

    def __init__(self, authority: Authority) -> None:
        self.target = Path("/nowhere")
        self.handshakes = 0
        """How many clients have accepted the certificate."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.present(authority)

    def present(self, authority: Authority) -> None:
        """Present the certificate of another authority from now on."""
        self._context.load_cert_chain(authority.localhost, authority.localhost_key)

    def drop_connections(self) -> None:
        """Close every open connection."""
        asyncio.run_coroutine_threadsafe(self._close_all(), self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._forward, "127.0.0.1", 0, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self.drop_connections()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handshakes += 1
        task = asyncio.current_task()
        assert task is not None
        self._open[writer] = task
        with suppress(OSError):
            server_reader, server_writer = await asyncio.open_unix_connection(str(self.target))
            await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))
        del self._open[writer]
        writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_PIECE):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def _close_all(self) -> None:
        tasks = set(self._open.values())
        for writer in self._open:
            writer.transport.abort()
        if tasks:
            await asyncio.wait(tasks)
