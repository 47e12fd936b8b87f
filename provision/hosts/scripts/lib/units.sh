# shellcheck shell=sh
# units: prints which kind of systemd units this user can have: system, user or none.
units() {
    [ -d /run/systemd/system ] || return 0
    if [ "$(id -u)" = 0 ]; then echo system
    elif [ -e "/var/lib/systemd/linger/$(id -un)" ] &&
        XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}" systemctl --user show-environment >/dev/null 2>&1
    then echo user
    fi
}
