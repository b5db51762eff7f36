// Whom nodemailer's address parser (mailparser's, too) sees in a header: a line of base64 in, a line of `s:` and `r:` words out.
"use strict";
const addressparser = require("nodemailer/lib/addressparser");
const SENDERS = ["from", "sender", "resent-from", "resent-sender"];
const RECIPIENTS = ["to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc", "apparently-to"];

const flat = (list) => list.flatMap((one) => (one.group ? flat(one.group) : [one.address || ""]));

function whom(line) {
  const words = new Set();
  // Each octet is a character, so that it comes back as it was.
  const header = Buffer.from(line, "base64").toString("latin1").replace(/\r\n(?=[ \t])/g, "");
  for (const field of header.split("\r\n")) {
    const colon = field.indexOf(":");
    const name = field.slice(0, colon).trim().toLowerCase();
    for (const [kind, names] of [["s", SENDERS], ["r", RECIPIENTS]]) {
      if (!names.includes(name)) continue;
      for (const value of [field.slice(colon + 1), field.slice(colon + 1).trim()]) {
        for (const address of flat(addressparser(value))) {
          words.add(kind + ":" + Buffer.from(address, "latin1").toString("base64"));
        }
      }
    }
  }
  return [...words].join(" ");
}

const lines = require("fs").readFileSync(0, "latin1").split("\n");
lines.pop();
process.stdout.write(lines.map((line) => whom(line) + "\n").join(""));
