"""Finds out why a server is unavailable. gRPC reports only the last address that it tried, often "Connection refused"."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl

from serving.client.config import ClientConfig, Tls
from serving.client.errors import DeadlineError, ServingError, UnavailableError
from serving.client.target import addresses_of

PROBE_SECONDS = 2.0
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""The environment variables in which gRPC looks for a proxy, in its order."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HTTP2_START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""The first bytes of an HTTP/2 client: the preface and an empty SETTINGS frame. A gRPC server sends SETTINGS, too."""


def explain(error: ServingError, target: str, config: ClientConfig) -> str:
    """Return a message for `error`: the reason that a connection to the target shows, or else the error's own."""
    cause = error.__cause__ if isinstance(error.__cause__, ServingError) else error
    if not isinstance(cause, UnavailableError | DeadlineError) or config.channel_credentials is not None:
        return str(error)
    for host, port in addresses_of(target):
        if reason := _probe(host, port, config.tls):
            return f"{host}:{port} {reason}" if cause is error else f"{error}; {host}:{port} {reason}"
    if proxy := next((name for name in _PROXIES if os.environ.get(name)), None):
        # A direct connection works.
        return f"{error}; gRPC connects through the proxy that {proxy} names: add the server's host to no_proxy"
    return str(error)


def _probe(host: str, port: int, tls: Tls | None) -> str | None:
    """Connect to the server; return what is wrong, as the rest of a sentence, or None if it speaks HTTP/2."""
    try:
        return _probe_plain_text((host, port)) if tls is None else _probe_tls((host, port), tls)
    except socket.gaierror as error:
        return f"cannot be resolved: {error.strerror}"
    except UnicodeError:
        return "cannot be resolved: a part of a host name has 1 to 63 characters"
    except ConnectionRefusedError:
        hint = "; start a server with `make serve` or `digits serve MODELS_DIR`" if host in _LOOPBACK else ""
        return f"refuses connections: nothing listens there{hint}"
    except TimeoutError:
        return f"does not respond within {PROBE_SECONDS:g} s: the network drops packets, or the server is frozen"
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"


def _probe_plain_text(address: tuple[str, int]) -> str | None:
    if _send_plain_text(address, _HTTP2_START)[3:4] == b"\x04":  # the type of a SETTINGS frame
        return None
    if _send_plain_text(address, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1"
    ):
        return "is an HTTP server, such as TensorFlow Serving's REST API (usually 8501); its gRPC port is usually 8500"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        _send_encrypted(address, address[0], context)
        return "expects an encrypted connection; add --tls"
    return "is no gRPC server: it closes the connection"


def _probe_tls(address: tuple[str, int], tls: Tls) -> str | None:
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.certificate_file and tls.key_file:
        try:
            # Without a password, OpenSSL would ask for one on the terminal. gRPC cannot read an encrypted key either.
            context.load_cert_chain(tls.certificate_file, tls.key_file, password="")
        except ssl.SSLError:
            return f"was not contacted: {tls.key_file} is encrypted, or it is not the key of {tls.certificate_file}"
    try:
        if _send_encrypted(address, tls.server_name or address[0], context)[3:4] == b"\x04":
            return None
    except ssl.SSLCertVerificationError as error:
        return f"has a certificate that is not accepted: {error.verify_message}"
    except ssl.SSLError as error:
        if "CERTIFICATE_REQUIRED" not in str(error.reason):
            return "does not encrypt connections; leave out --tls and its options"
    except ConnectionResetError:
        pass
    # With TLS 1.3, a server that misses the client's certificate closes the connection after the handshake.
    return "closes the connection: it may require another client certificate (--certificate-file, --key-file)"


def _send_plain_text(address: tuple[str, int], content: bytes) -> bytes:
    with socket.create_connection(address, PROBE_SECONDS) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(content)
        return connection.recv(9)
    return b""


def _send_encrypted(address: tuple[str, int], server_name: str, context: ssl.SSLContext) -> bytes:
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(address, PROBE_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=server_name) as encrypted,
    ):
        encrypted.sendall(_HTTP2_START)
        return encrypted.recv(9)
