"""Security: authenticated ciphers, hashes, signatures and TLS on one core, small and large, into fresh and reused memory."""

from __future__ import annotations

from random import Random

from capacity.measurement.case import FULL, Kernel, NotSupportedError, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

CIPHERS = ("aes-256-gcm", "aes-128-gcm", "chacha20-poly1305")
HASHES = ("sha-256", "blake2b", "blake3")
SIGNATURES = ("ed25519", "ecdsa-p256", "rsa-3072")
_SIZES = (0.25, 4, 64, 1024, 16384, 65536, 131072)
TAG_BYTES = 16


def _cipher_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    for cipher in CIPHERS if profile == FULL else CIPHERS[:1]:
        for memory in ("reused", "fresh"):
            for kibibytes in _SIZES if profile == FULL else (65536,):
                yield {"cipher": cipher, "memory": memory, "KiB": kibibytes}


def _build_cipher(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001 - every kernel's signature
    from cryptography.hazmat.primitives.ciphers import aead

    name = parameters["cipher"]
    key = bytes(range(16 if name == "aes-128-gcm" else 32))
    cipher: Any = aead.ChaCha20Poly1305(key) if name.startswith("chacha") else aead.AESGCM(key)
    size = int(parameters["KiB"] * 1024)
    plain, nonce = _noise(size), bytes(12)
    if parameters["memory"] == "fresh":
        return Work(run=lambda: cipher.encrypt(nonce, plain, None), moved_bytes=float(size))
    if not hasattr(cipher, "encrypt_into"):
        raise NotSupportedError("this release of cryptography cannot write into a buffer")
    target = bytearray(size + TAG_BYTES)
    return Work(run=lambda: cipher.encrypt_into(nonce, plain, None, target), moved_bytes=float(size))


def _hash_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    for name in HASHES if profile == FULL else HASHES[:1]:
        for kibibytes in _SIZES if profile == FULL else (65536,):
            yield {"hash": name, "KiB": kibibytes}


def _build_hash(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001
    size = int(parameters["KiB"] * 1024)
    plain, digest = _noise(size), _hasher(parameters["hash"])
    return Work(run=lambda: digest(plain), moved_bytes=float(size))


def _hasher(name: str) -> Callable[[bytes], object]:
    if name == "blake3":
        from blake3 import blake3

        return lambda plain: blake3(plain).digest()
    import hashlib

    return {
        "sha-256": lambda plain: hashlib.sha256(plain).digest(),
        "blake2b": lambda plain: hashlib.blake2b(plain).digest(),
    }[name]


def _signature_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    for name in SIGNATURES if profile == FULL else SIGNATURES[:1]:
        for op in ("sign", "verify") if profile == FULL else ("sign",):
            yield {"scheme": name, "op": op}


def _build_signature(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    name, digest = parameters["scheme"], bytes(range(32))
    how: tuple[Any, ...]
    if name == "ed25519":
        key: Any = ed25519.Ed25519PrivateKey.generate()
        how = ()
    elif name == "ecdsa-p256":
        key, how = ec.generate_private_key(ec.SECP256R1()), (ec.ECDSA(hashes.SHA256()),)
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
        how = (padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    if parameters["op"] == "sign":
        return Work(run=lambda: key.sign(digest, *how))
    signed, public = key.sign(digest, *how), key.public_key()
    return Work(run=lambda: public.verify(signed, digest, *how))


def _tls_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu" or profile != FULL:
        return
    yield {"op": "handshake", "KiB": 0}
    for kibibytes in (16, 128, 1024, 8192):
        yield {"op": "stream", "KiB": kibibytes}


def _build_tls(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001
    """Both ends of TLS 1.3 in one process, over memory: what is sent is enciphered and deciphered, and no network waits."""
    server_context, client_context = _contexts()
    if parameters["op"] == "handshake":
        return Work(run=lambda: _connected(server_context, client_context))
    sender, receiver, wire = _connected(server_context, client_context)
    size = int(parameters["KiB"] * 1024)
    plain, target = _noise(size), bytearray(2**16)

    def run() -> None:
        sent = taken = 0
        while taken < size:
            if sent < size:
                sent += sender.write(plain[sent : sent + 2**16])
            wire()
            while taken < sent:
                taken += receiver.read(len(target), target)

    return Work(run=run, moved_bytes=float(size))


def _contexts() -> tuple[Any, Any]:
    """Contexts of a server with a certificate of its own making, and of a client that trusts it."""
    import ssl
    import tempfile
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("bench")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:  # the library takes keys from files only
        file.write(private + public)
        file.flush()
        server.load_cert_chain(file.name)
    client = ssl.create_default_context(cadata=public.decode())
    return server, client


def _connected(server_context: Any, client_context: Any) -> tuple[Any, Any, Callable[[], None]]:
    """The two ends after their handshake, and what carries bytes from the first to the second and back."""
    import ssl

    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_in, server_in = back, there
    client_out, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(client_in, client_out, server_hostname="bench")
    server = server_context.wrap_bio(server_in, server_out, server_side=True)

    def wire() -> None:
        for source, target in ((client_out, server_in), (server_out, client_in)):
            waiting = source.read()
            if waiting:
                target.write(waiting)

    done: set[int] = set()
    while len(done) < 2:
        for number, end in enumerate((client, server)):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                pass
            wire()
    return client, server, wire


def _noise(size: int) -> bytes:
    block = Random(19).randbytes(min(size, 2**20))  # noqa: S311 - to be enciphered, no secret
    return (block * (size // len(block) + 1))[:size]


FAMILIES = (
    Kernel("cipher", "authenticated encryption", _cipher_cases, _build_cipher, kind="security"),
    Kernel("hash", "digests of files", _hash_cases, _build_hash, kind="security"),
    Kernel("signature", "signing and checking one digest", _signature_cases, _build_signature, kind="security"),
    Kernel("tls", "TLS 1.3, both ends on one core", _tls_cases, _build_tls, kind="security"),
)
