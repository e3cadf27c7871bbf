"""How two ends of a connection prove to each other that they know the same key, without sending it.

One end *delivers a challenge* and the other *answers*; then they change parts.  All are messages of at most 256 bytes:

    server                                            client
      ── #CHALLENGE# + challenge ─────────────────────▶
      ◀──────────────────────────────────── response ──
      ── #WELCOME#  or  #FAILURE# ────────────────────▶

Two forms are alive, and an end understands both, so that it can talk to any Python:

===========  =====================================  =========================================
form         challenge                              response
===========  =====================================  =========================================
modern       ``{digest}`` + 40 random bytes         ``{digest}`` + HMAC of the whole challenge
md5 only     20 random bytes (Python up to 3.11)    16 bytes, HMAC-MD5 of the whole challenge
===========  =====================================  =========================================

The name of the digest stands inside what is signed, so nobody in between can talk the two into a weaker one.  An old
client signs a modern challenge with MD5 as it does any other, and that is accepted too.
"""

from __future__ import annotations

import os

from .context import AuthenticationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["answer_challenge", "deliver_challenge"]

#: random bytes in a challenge of ours
MESSAGE_LENGTH = 40
CHALLENGE = b"#CHALLENGE#"
WELCOME = b"#WELCOME#"
FAILURE = b"#FAILURE#"

_MD5ONLY_MESSAGE_LENGTH = 20
_MD5_DIGEST_LEN = 16
#: a message of such a length is of the md5 form: a challenge or a response
_LEGACY_LENGTHS = (_MD5ONLY_MESSAGE_LENGTH, _MD5_DIGEST_LEN)
_ALLOWED_DIGESTS = frozenset((b"md5", b"sha256", b"sha384", b"sha3_256", b"sha3_384"))
_MAX_DIGEST_LEN = max(map(len, _ALLOWED_DIGESTS))
#: no message of the exchange is longer, in bytes; checked before anything of it is read
_MOST = 256


def _get_digest_name_and_payload(message: bytes) -> tuple[str, bytes]:
    """Take ``{digest}payload`` apart; the name is '' for the md5 form."""
    if len(message) in _LEGACY_LENGTHS:
        return "", message
    if message.startswith(b"{"):
        name, brace, payload = message[1:].partition(b"}")
        if brace and name in _ALLOWED_DIGESTS:
            return name.decode("ascii"), payload
    raise AuthenticationError(f"unsupported message length, missing digest prefix, or unsupported digest: {message!r}")


def _create_response(authkey: bytes, message: bytes) -> bytes:
    """What answers the challenge `message`, in the form in which it was put."""
    import hmac  # late: it takes longer to import than all the rest, and pipes do without

    digest, _ = _get_digest_name_and_payload(message)
    if not digest:
        return hmac.digest(authkey, message, "md5")
    return b"{%s}%s" % (digest.encode("ascii"), hmac.digest(authkey, message, digest))


def _verify_challenge(authkey: bytes, message: bytes, response: bytes) -> None:
    """AuthenticationError unless `response` answers the challenge `message`."""
    import hmac  # late: it takes longer to import than all the rest, and pipes do without

    digest, given = _get_digest_name_and_payload(response)
    expected = hmac.digest(authkey, message, digest or "md5")
    if len(given) != len(expected):
        raise AuthenticationError(f"expected {digest or 'md5'!r} of length {len(expected)} got {len(given)}")
    if not hmac.compare_digest(expected, given):
        raise AuthenticationError("digest received was wrong")


def _check_key(authkey: Any) -> None:
    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)!s}")


def deliver_challenge(connection: Any, authkey: bytes, digest_name: str = "sha256") -> None:
    """Challenge the other end of `connection`; AuthenticationError where it does not know `authkey`."""
    _check_key(authkey)
    challenge = b"{%s}%s" % (digest_name.encode("ascii"), os.urandom(MESSAGE_LENGTH))
    connection.send_bytes(CHALLENGE + challenge)
    response = connection.recv_bytes(_MOST)
    try:
        _verify_challenge(authkey, challenge, response)
    except AuthenticationError:
        connection.send_bytes(FAILURE)
        raise
    connection.send_bytes(WELCOME)


def answer_challenge(connection: Any, authkey: bytes) -> None:
    """Answer the challenge of the other end of `connection`; AuthenticationError where it does not accept the answer."""
    _check_key(authkey)
    message = connection.recv_bytes(_MOST)
    if not message.startswith(CHALLENGE):
        raise AuthenticationError(f"Protocol error, expected challenge: {message!r}")
    challenge = message[len(CHALLENGE) :]
    if len(challenge) < _MD5ONLY_MESSAGE_LENGTH:
        raise AuthenticationError(f"challenge too short: {len(challenge)} bytes")
    connection.send_bytes(_create_response(authkey, challenge))
    if connection.recv_bytes(_MOST) != WELCOME:
        raise AuthenticationError("digest sent was rejected")
