#!/usr/bin/env bash
# OpenSMTPD as an instance of its own, run from its unpacked package, since the installed one would drive out Postfix. Its spool
# has a fixed place, so it runs in a mount namespace where its own folder is there. Set as an expert would: 50 connections to the
# smarthost, no delays, large batches, names looked up in /etc/hosts only. It does not sync what it answers with 250; that is how
# it is made. Its listen backlog of 5 is compiled in, and of a burst the kernel would leave connections beyond it without a
# greeting for ever (SYN cookies), so a preloaded library makes it 1200. As a TLS server Debian 12's build fails in every handshake,
# since the way it keeps its key apart does not work with OpenSSL 3: `starttls` has nothing but faults. With STOCK all limits of sending
# and of the scheduler are as they come.
#   opensmtpd.sh install CACHE | start CACHE DIR PORT SINK | stop DIR
set -euo pipefail
case $1 in
install)
    mkdir -p "$2/opensmtpd"
    cd "$2/opensmtpd"
    if [ ! -x usr/sbin/smtpd ]; then
        apt-get update -qq
        apt-get download -qq opensmtpd 2>/dev/null || { echo "opensmtpd is in no package source" >&2; exit 77; }
        for package in ./*.deb; do dpkg -x "$package" .; done
    fi
    if ldd usr/sbin/smtpd | grep -q 'not found'; then
        mapfile -t libraries < <(apt-get install -s --no-install-recommends opensmtpd | sed -n 's/^Inst \(lib[^ ]*\).*/\1/p')
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${libraries[@]}" >/dev/null
    fi
    # What its package makes: two users, and the places that it has fixed.
    mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty
    for user in opensmtpd opensmtpq; do
        id "$user" >/dev/null 2>&1 || useradd --system --no-create-home --home-dir /var/lib/opensmtpd/empty --shell /usr/sbin/nologin "$user"
    done
    echo '#include <sys/syscall.h>
#include <unistd.h>
int listen(int fd, int backlog) { (void)backlog; return syscall(SYS_listen, fd, 1200); }' | cc -shared -fPIC -x c -o backlog.so -
    ;;
start)
    cache=$2/opensmtpd dir=$3
    mkdir -p "$dir/spool"
    chmod 711 "$dir/spool"
    echo 'lookup file' >"$dir/resolv.conf"
    pki='' tls='' out="smtp+notls://127.0.0.1:$5"
    if [ -n "${TLS_IN:-}" ]; then
        install -m 600 "$CERTS/key.pem" "$dir/key.pem"
        pki="pki bench cert \"$CERTS/cert.pem\"
pki bench key \"$dir/key.pem\""
        tls='tls pki bench'
    fi
    [ -z "${TLS_OUT:-}" ] || out="smtp+tls://127.0.0.1:$5"
    cat >"$dir/smtpd.conf" <<END
$pki
smtp max-message-size 50M
smtp limit max-mails 1000000
mta limit max-conn-per-host 50
mta limit max-conn-per-route 50
mta limit max-conn-per-source 50
mta limit max-conn-per-connector 50
mta limit max-conn-per-relay 50
mta limit max-conn-per-domain 50
mta limit conn-delay-host 0
mta limit conn-delay-route 0
mta limit conn-delay-source 0
mta limit conn-delay-connector 0
mta limit conn-delay-relay 0
mta limit conn-delay-domain 0
mta limit reconn-delay-route 0
mta limit session-transaction-delay 0
mta limit session-mail-max 1000
mta limit task-hiwat 10000
mta limit task-lowat 1000
mta limit task-release 1000
scheduler limit max-inflight 10000
scheduler limit max-evp-batch-size 1024
scheduler limit max-msg-batch-size 1024
scheduler limit max-schedule 1024
listen on 127.0.0.1 port $4 $tls
action "out" relay host $out
match from any for any action "out"
END
    [ -z "${STOCK:-}" ] || sed -i -E '/^(mta|scheduler) limit /d' "$dir/smtpd.conf"
    unshare --mount --propagation private bash -c \
        'mount --bind "$1/spool" /var/spool/smtpd && mount --bind "$1/resolv.conf" /etc/resolv.conf &&
            LD_PRELOAD=$2/backlog.so exec "$2/usr/sbin/smtpd" -d -f "$1/smtpd.conf"' - "$dir" "$cache" >"$dir/out" 2>&1 &
    echo $! >"$dir/pid"
    ;;
stop)
    pid=$(cat "$2/pid" 2>/dev/null) || exit 0
    kill "$pid" 2>/dev/null || exit 0
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    ;;
esac
