#!/bin/sh
# Verifies messages with opendkim-testmsg, which asks the DNS of the system: so it runs in a network and with a resolv.conf of its own, and a
# small server there has the records. Only root can do that.
#
# Arguments: a folder for what it needs, a JSON file of records, and files of messages, of which it prints "good FILE" or "bad FILE: WHY".
set -eu
here=$(dirname "$0")
if [ "${1:-}" != inside ]; then
    exec unshare --mount --net "$0" inside "$@"
fi
folder=$2
records=$3
shift 3
ip link set lo up
echo "nameserver 127.0.0.1" >"$folder/resolv.conf"
mount --bind "$folder/resolv.conf" /etc/resolv.conf
rm -f "$folder/ready"
python3 "$here/names.py" "$records" "$folder/ready" &
server=$!
trap 'kill "$server"' EXIT
while [ ! -e "$folder/ready" ]; do sleep 0.02; done
for file; do
    if said=$(opendkim-testmsg -t "$folder" <"$file" 2>&1) && [ -z "$said" ]; then
        echo "good $file"
    else
        echo "bad $file: $said"
    fi
done
