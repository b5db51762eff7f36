#!/usr/bin/env bash
# Postern as it is measured (see postern.toml): the release build of this tree, or the program that POSTERN names. With STOCK it is told
# no number of connections, or MAX_CONNECTIONS alone. MORE: what is added to its configuration.
#   postern.sh install CACHE | start CACHE DIR PORT SINK | stop DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case $1 in
install) ;;
start)
    dir=$3
    in='tls = "off"' out='tls = "off"'
    [ -z "${TLS_IN:-}" ] || in="tls = \"starttls\"\ncertificate = \"$CERTS/cert.pem\"\nkey = \"$CERTS/key.pem\""
    [ -z "${TLS_OUT:-}" ] || out="tls = \"starttls\"\nca_file = \"$CERTS/cert.pem\""
    sed -e "s|@DIR@|$dir|; s|@PORT@|$4|; s|@SINK@|$5|; s|@TLS_IN@|$in|; s|@TLS_OUT@|$out|" "$here/postern.toml" >"$dir/config.toml"
    if [ -n "${STOCK:-}" ]; then
        most=${MAX_CONNECTIONS:+max_connections = $MAX_CONNECTIONS}
        sed -i -e "s|^max_connections = .*|$most|" -e '/^messages_per_connection = /d' "$dir/config.toml"
    fi
    [ -z "${MORE:-}" ] || printf '\n%s\n' "$MORE" >>"$dir/config.toml"
    chmod 600 "$dir/config.toml"
    "${POSTERN:-$here/../../target/release/postern}" run -c "$dir/config.toml" >"$dir/out" 2>&1 &
    echo $! >"$dir/pid"
    ;;
stop)
    pid=$(cat "$2/pid")
    kill "$pid" 2>/dev/null || exit 0
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    ;;
esac
