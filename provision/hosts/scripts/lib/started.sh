# shellcheck shell=sh
# shellcheck disable=SC2034,SC2086 # for the script that uses this; words are split on purpose
# In scripts that use this, $1 is the deployment's directory on the host. A node there is any unit: the app, too.
# started PID: whether that process is there; sets when it was started, and `frozen` if it is.
started() {
    { read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 1
    set -- ${stat##*) }
    frozen=
    [ "$1" != T ] || frozen=paused
    [ "$1" != Z ] && start_now=${20}
}
