# After an upgrade: the new program looks at the configuration and the queue before it takes the old one's place.
# What it refuses keeps the old program running, and the administrator is told. The package manager never fails over it.
say() {
    echo "postern: $*" >&2
}

# What hides the package's files. Nothing is changed: it is somebody's own.
beside() {
    if [ -e /usr/local/bin/postern ]; then
        say "/usr/local/bin/postern comes before /usr/bin/postern; remove it when it is not meant"
    fi
    if [ -e /etc/systemd/system/postern.service ] && [ ! -L /etc/systemd/system/postern.service ]; then
        say "/etc/systemd/system/postern.service hides the package's unit; remove it when it is not meant"
    fi
}

# The check runs as the service does: its user, its environment (credentials too), its configuration file.
agrees() {
    pid=$(systemctl show -p MainPID --value postern.service 2>/dev/null) || return 1
    [ "${pid:-0}" -gt 0 ] && [ -r "/proc/$pid/environ" ] || return 1
    user=$(systemctl show -p User --value postern.service 2>/dev/null) || return 1
    config=$(tr '\0' '\n' <"/proc/$pid/cmdline" |
        sed -n -e 's/^--config=//p' -e '/^-c$/{n;p;}' -e '/^--config$/{n;p;}' | head -n 1)
    # shellcheck disable=SC2016 # "$@" is for the inner shell
    xargs -0 sh -c 'user=$1 config=$2; shift 2
        exec runuser -u "$user" -- env -i "$@" /usr/bin/postern check ${config:+-c "$config"}' \
        sh "${user:-root}" "$config" <"/proc/$pid/environ" >&2
}

upgraded() {
    beside
    [ -d /run/systemd/system ] && command -v systemctl >/dev/null || return 0
    systemctl daemon-reload || true
    systemctl --quiet is-active postern.service || return 0
    if ! agrees; then
        say "the new version does not start with this (see above): the old one runs on."
        say "mend it, then: postern check && systemctl restart postern"
        return 0
    fi
    systemctl restart postern.service ||
        say "the new version did not start: see systemctl status postern, journalctl -u postern"
    return 0
}
