"""A DNS server for TXT records, on 127.0.0.1:53 of a network of its own. Arguments: a JSON file of records (name: text), and a file
that is made when it answers."""

import json
import socket
import struct
import sys

with open(sys.argv[1], encoding="ascii") as file:
    records = {name.lower(): text.encode() for name, text in json.load(file).items()}
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
with open(sys.argv[2], "w", encoding="ascii"):
    pass
while True:
    query, peer = server.recvfrom(4096)
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    question = query[12 : at + 5]
    kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
    text = records.get(".".join(labels).lower()) if kind == 16 else None
    code = 0 if text is not None else 3
    answers = b""
    if text is not None:
        strings = [text[i : i + 255] for i in range(0, len(text), 255)]
        data = b"".join(bytes([len(one)]) + one for one in strings)
        answers = b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 60, len(data)) + data
    head = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, int(bool(answers)), 0, 0)
    server.sendto(head + question + answers, peer)
