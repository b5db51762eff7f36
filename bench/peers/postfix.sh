#!/usr/bin/env bash
# Postfix as an instance of its own, with the settings of an expert: enough processes, the connection to the smarthost kept,
# no lookups, no delay at the door. Every message is synced before its 250, as it always is. With STOCK the processes, the connections
# to the smarthost, what keeps them, and the delay at the door are as they come.
#   postfix.sh install CACHE | start CACHE DIR PORT SINK | stop DIR
set -euo pipefail
case $1 in
install)
    PATH="$PATH:/usr/sbin:/sbin" command -v postfix >/dev/null && exit
    apt-get update -qq
    # It must not start by itself.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends postfix >/dev/null
    ;;
start)
    dir=$3 port=$4 sink=$5
    mkdir -p "$dir/etc" "$dir/queue" "$dir/data"
    chown postfix "$dir/data"
    chmod 755 "$dir" "$dir/etc" "$dir/queue"
    cat >"$dir/etc/main.cf" <<EOF
compatibility_level = 3.6
queue_directory = $dir/queue
data_directory = $dir/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
myhostname = relay.bench.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.1/32
relayhost = [127.0.0.1]:$sink
maillog_file = $dir/log
maillog_file_prefixes = $dir
alias_maps =
alias_database =
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
message_size_limit = 50000000
mailbox_size_limit = 0
smtpd_recipient_restrictions = permit_mynetworks, reject
EOF
    if [ -z "${STOCK:-}" ]; then
        cat >>"$dir/etc/main.cf" <<EOF
default_process_limit = 250
default_destination_concurrency_limit = 50
initial_destination_concurrency = 50
smtp_connection_cache_destinations = [127.0.0.1]:$sink
smtp_connection_cache_on_demand = yes
in_flow_delay = 0
EOF
    fi
    if [ -n "${TLS_IN:-}" ]; then
        printf '%s\n' "smtpd_tls_security_level = may" "smtpd_tls_cert_file = $CERTS/cert.pem" "smtpd_tls_key_file = $CERTS/key.pem" >>"$dir/etc/main.cf"
    fi
    [ -z "${TLS_OUT:-}" ] || echo "smtp_tls_security_level = encrypt" >>"$dir/etc/main.cf"
    sed -e "s/^smtp  *inet .*/127.0.0.1:$port inet n - n - 1100 smtpd/" /usr/share/postfix/master.cf.dist |
        sed -E 's/^([a-z-]+ +(unix|inet|unix-dgram) +[yn-] +[yn-] +)[yn-]/\1n/' >"$dir/etc/master.cf"
    grep -q '^postlog' "$dir/etc/master.cf" || echo 'postlog unix-dgram n - n - 1 postlogd' >>"$dir/etc/master.cf"
    postfix -c "$dir/etc" check >"$dir/out" 2>&1 || true
    postfix -c "$dir/etc" start >>"$dir/out" 2>&1
    ;;
stop) postfix -c "$2/etc" stop >/dev/null 2>&1 || true ;;
esac
