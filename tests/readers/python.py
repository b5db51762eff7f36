"""Whom Python's email package sees in a header: a line of base64 in, a line of `s:` and `r:` words out.

Both policies, both readers of lists, strict and lax: what any of them finds counts.
"""
import base64
import email
import email.policy
import email.utils
import sys

SENDERS = ("from", "sender", "resent-from", "resent-sender")
RECIPIENTS = ("to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc", "apparently-to")
seen = {}


def texts(value):
    # As code that knows nothing of charsets has it, and as code that unfolds has it.
    yield value
    yield value.replace("\r\n", "").replace("\n", "")


def lax(value):
    found = set()
    for text in texts(value):
        for strict in (True, False):
            try:
                found.update(a for _, a in email.utils.getaddresses([text], strict=strict))
                found.add(email.utils.parseaddr(text, strict=strict)[1])
            except TypeError:  # older ones know no `strict`, and are lax
                found.update(a for _, a in email.utils.getaddresses([text]))
                found.add(email.utils.parseaddr(text)[1])
    return found


def structured(name, value):
    found = set()
    try:
        field = email.policy.default.header_factory(name, value.replace("\r\n", ""))
        found.update(a.addr_spec for a in field.addresses if a.domain)
    except (AttributeError, IndexError, TypeError, ValueError):
        pass  # it gives up: nobody is seen
    return found


def whom(name, value):
    key = (name in SENDERS, value)
    if key not in seen:
        # Sender is read as one mailbox; as a list it is read with the others.
        seen[key] = lax(value) | structured("to", value) | structured(name, value)
    return seen[key]


for line in sys.stdin.buffer:
    raw = base64.b64decode(line) + b"\r\n"
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    words = set()
    for name, value in message.raw_items():
        name = name.lower()
        for kind, names in (("s", SENDERS), ("r", RECIPIENTS)):
            if name in names:
                for address in whom(name, str(value)):
                    octets = address.encode("utf-8", "surrogateescape")
                    words.add(kind + ":" + base64.b64encode(octets).decode())
    print(" ".join(sorted(words)))
