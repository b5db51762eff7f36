#!/usr/bin/env bash
# chasquid as an instance of its own, run from its unpacked package. It has no smarthost: the sink's domain is local here, an
# alias sends its mail on to an address at 127.0.0.1, which it takes for a host without MX, and the port is set by the option
# that its own tests use. So it also rewrites the sender. It looks up SPF and MTA-STS for every message; it runs in a mount
# namespace with a resolver that refuses at once. It writes a queue file before the 250, but does not sync it, opens a
# connection for every message that it sends, and refuses mail while 200 messages wait; that is how this version is made.
#   chasquid.sh install CACHE | start CACHE DIR PORT SINK | stop DIR
set -euo pipefail
case $1 in
install)
    mkdir -p "$2/chasquid"
    cd "$2/chasquid"
    [ ! -x usr/bin/chasquid ] || exit 0
    apt-get update -qq
    apt-get download -qq chasquid 2>/dev/null || { echo "chasquid is in no package source" >&2; exit 77; }
    for package in ./*.deb; do dpkg -x "$package" .; done
    ;;
start)
    program=$2/chasquid/usr/bin/chasquid dir=$3
    mkdir -p "$dir/etc/domains/sink.example" "$dir/etc/certs/relay.bench.example" "$dir/data"
    # It does not start without a certificate.
    cp "$CERTS/cert.pem" "$dir/etc/certs/relay.bench.example/fullchain.pem"
    install -m 600 "$CERTS/key.pem" "$dir/etc/certs/relay.bench.example/privkey.pem"
    cat >"$dir/etc/chasquid.conf" <<EOF
hostname: "relay.bench.example"
max_data_size_mb: 50
smtp_address: "127.0.0.1:$4"
data_dir: "$dir/data"
mail_log_path: "$dir/log"
EOF
    echo 'rcpt: rcpt@127.0.0.1' >"$dir/etc/domains/sink.example/aliases"
    printf '%s\n' 'nameserver 127.255.255.53' 'options attempts:1' >"$dir/resolv.conf"
    unshare --mount --propagation private bash -c \
        'mount --bind "$1/resolv.conf" /etc/resolv.conf && exec "$2" -config_dir "$1/etc" -testing__outgoing_smtp_port "$3"' \
        - "$dir" "$program" "$5" >"$dir/out" 2>&1 &
    echo $! >"$dir/pid"
    ;;
stop)
    pid=$(cat "$2/pid" 2>/dev/null) || exit 0
    kill "$pid" 2>/dev/null || exit 0
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    ;;
esac
