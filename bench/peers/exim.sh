#!/usr/bin/env bash
# Exim as an instance of its own, run from its unpacked packages, since the installed ones would drive out Postfix. Set as an
# expert would: enough connections, no limit per connection or by load, the spool split, no lookups, delivery at once. It syncs
# its spool files before the 250, as it always does. With STOCK it is the same: how many connections it opens to the smarthost is how many
# messages come in at once, and its limits at the door would leave what is beyond them to a queue runner.
#   exim.sh install CACHE | start CACHE DIR PORT SINK | stop DIR
set -euo pipefail
case $1 in
install)
    mkdir -p "$2/exim"
    cd "$2/exim"
    if [ ! -x usr/sbin/exim4 ]; then
        apt-get update -qq
        apt-get download -qq exim4-base exim4-daemon-light 2>/dev/null || { echo "exim4 is in no package source" >&2; exit 77; }
        for package in ./*.deb; do dpkg -x "$package" .; done
    fi
    if ldd usr/sbin/exim4 | grep -q 'not found'; then
        mapfile -t libraries < <(apt-get install -s --no-install-recommends exim4-daemon-light | sed -n 's/^Inst \(lib[^ ]*\).*/\1/p')
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${libraries[@]}" >/dev/null
    fi
    # The user that it was built for.
    id Debian-exim >/dev/null 2>&1 || useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin Debian-exim
    ;;
start)
    program=$2/exim/usr/sbin/exim4 dir=$3
    mkdir -p "$dir/spool" "$dir/log"
    tls='tls_advertise_hosts =' secure=''
    [ -z "${TLS_IN:-}" ] || tls="tls_advertise_hosts = *
tls_certificate = $CERTS/cert.pem
tls_privatekey = $CERTS/key.pem"
    # A test of delivery reports: they are offered.
    [ -z "${DSN:-}" ] || tls="$tls
dsn_advertise_hosts = *"
    [ -z "${TLS_OUT:-}" ] || secure='  hosts_require_tls = *
  tls_verify_hosts = :
  tls_try_verify_hosts = :'
    cat >"$dir/exim.conf" <<END
exim_path = $program
spool_directory = $dir/spool
log_file_path = $dir/log/%slog
pid_file_path = $dir/pid
primary_hostname = relay.bench.example
disable_ipv6 = true
local_interfaces = 127.0.0.1
daemon_smtp_ports = $4
$tls
host_lookup =
rfc1413_hosts =
smtp_accept_max = 1200
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 1200
remote_max_parallel = 4
split_spool_directory = true
deliver_drop_privilege = true
message_size_limit = 50M
keep_environment =
acl_smtp_rcpt = take
begin acl
take:
  accept hosts = 127.0.0.1
begin routers
smarthost:
  driver = manualroute
  route_list = * 127.0.0.1::$5 byname
  self = send
  transport = out
begin transports
out:
  driver = smtp
  hosts_try_fastopen = :
$secure
begin retry
* * F,1h,1m
END
    chown Debian-exim "$dir/spool" "$dir/log"
    chmod 644 "$dir/exim.conf"
    "$program" -C "$dir/exim.conf" -bd -q1m >"$dir/out" 2>&1
    ;;
stop)
    pid=$(cat "$2/pid" 2>/dev/null) || exit 0
    kill "$pid" 2>/dev/null || exit 0
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    ;;
esac
