"""Verifies every DKIM signature of messages with dkimpy, without DNS.

Arguments: a JSON file of records (name: text), and files of messages. Prints a JSON object: file: list of
[selector, true or the fault], the uppermost signature first.
"""

import json
import sys

import dkim
from dkim.canonicalization import CanonicalizationPolicy


def main():
    with open(sys.argv[1], encoding="ascii") as file:
        records = json.load(file)

    def lookup(name, timeout=5):
        return records.get(name.decode().rstrip("."), "").encode()

    found = {}
    for path in sys.argv[2:]:
        with open(path, "rb") as file:
            message = file.read()
        found[path] = verdicts(message, lookup)
    json.dump(found, sys.stdout)


def verdicts(message, lookup):
    headers, _ = dkim.rfc822_parse(message)
    count = sum(1 for name, _ in headers if name.lower() == b"dkim-signature")
    result = []
    for index in range(count):
        verifier = dkim.DKIM(message)
        try:
            good = verifier.verify(idx=index, dnsfunc=lookup)
            selector = verifier.signature_fields[b"s"].decode()
            result.append([selector, True if good else "does not verify"])
        except (dkim.DKIMException, ValueError) as error:
            result.append(["?", f"{type(error).__name__}: {error}"])
    return result


# What both ends must agree on is in the library, or this is another one.
assert CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
main()
