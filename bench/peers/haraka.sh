#!/usr/bin/env bash
# Haraka as an instance of its own, from the npm registry. Mail goes through its outbound queue, which syncs the file (not the
# folder) before the 250; smtp_forward is only a proxy that keeps nothing. Set as an expert would: two workers,
# 50 deliveries at a time in each, only the plugins that relaying needs, the route fixed instead of looked up, log level notice.
# It opens a connection for every message that it sends; that is how it is made. Runs with Node.js 18 and newer.
#   haraka.sh install CACHE | start CACHE DIR PORT SINK | stop DIR
set -euo pipefail
case $1 in
install)
    mkdir -p "$2/haraka"
    cd "$2/haraka"
    packages=()
    command -v node >/dev/null || packages+=(nodejs)
    command -v npm >/dev/null || packages+=(npm)
    if [ ${#packages[@]} -gt 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    fi
    [ -f node_modules/haraka-plugin-relay/package.json ] ||
        npm install --prefix . --cache .npm --silent --no-audit --no-fund --omit=optional Haraka@3.3.4 haraka-plugin-relay@1.0.2
    ;;
start)
    cache=$2/haraka dir=$3
    mkdir -p "$dir/config" "$dir/queue"
    cd "$dir/config"
    echo relay.bench.example >me
    printf '%s\n' "listen=127.0.0.1:$4" nodes=2 >smtp.ini
    printf '%s\n' '[main]' level=notice format=default >log.ini
    # It has no defaults of its own for what this file lacks.
    sed 's/^bytes=.*/bytes=52428800/' "$cache/node_modules/Haraka/config/connection.ini" >connection.ini
    printf '%s\n' concurrency_max=50 inet_prefer=v4 >outbound.ini
    printf '%s\n' '[relay]' acl=true force_routing=true >relay.ini
    echo 127.0.0.1/32 >relay_acl_allow
    printf '%s\n' '[domains]' "any={\"nexthop\":\"127.0.0.1:$5\"}" >relay_dest_domains.ini
    echo relay >plugins
    if [ -n "${TLS_IN:-}" ]; then
        echo tls >>plugins
        cp "$CERTS/cert.pem" tls_cert.pem
        install -m 600 "$CERTS/key.pem" tls_key.pem
    fi
    if [ -n "${TLS_OUT:-}" ]; then
        # Where it must not go without TLS, it verifies the certificate.
        printf '%s\n' '[outbound]' 'force_tls_hosts[]=127.0.0.1' >tls.ini
        export NODE_EXTRA_CA_CERTS=$CERTS/cert.pem
    fi
    node "$cache/node_modules/Haraka/bin/haraka" -c "$dir" >"$dir/out" 2>&1 &
    echo $! >"$dir/pid"
    ;;
stop)
    pid=$(cat "$2/pid" 2>/dev/null) || exit 0
    # The first process starts a worker anew that ends before it.
    workers=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null) || exit 0
    for each in $pid $workers; do kill "$each" 2>/dev/null || true; done
    for each in $pid $workers; do while kill -0 "$each" 2>/dev/null; do sleep 0.05; done; done
    ;;
esac
