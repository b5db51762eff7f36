#!/usr/bin/env bash
# A PostgreSQL of its own for `bench/postgres`, as it comes but for what a server for mail would have: on the disk that the others are measured
# on, every commit synced. It runs as the user of the package, which only root can become.
#   postgres.sh start DIR PORT | stop DIR
set -euo pipefail
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
as_user() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid postgres --regid postgres --clear-groups -- "$@"; else "$@"; fi
}
case $1 in
start)
    dir=$2
    mkdir -p "$dir"
    [ "$(id -u)" != 0 ] || chown postgres:postgres "$dir"
    (
        cd /
        as_user "$bin/initdb" -D "$dir/data" --auth=trust --username=postgres --locale=C --encoding=UTF8 >/dev/null
        as_user tee -a "$dir/data/postgresql.conf" >/dev/null <<END
listen_addresses = '127.0.0.1'
port = $3
unix_socket_directories = '$dir'
max_connections = 200
shared_buffers = 512MB
max_wal_size = 4GB
END
        as_user "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >/dev/null
        as_user "$bin/psql" -q -h "$dir" -p "$3" -U postgres -c "CREATE ROLE postern LOGIN" -c "CREATE DATABASE postern OWNER postern"
    )
    ;;
stop) (cd / && as_user "$bin/pg_ctl" -D "$2/data" -m fast -w stop >/dev/null) ;;
esac
