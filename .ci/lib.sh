# Shared by run, prepare and engine: one timed line per step, retries, and root rights. Sourced, never run.

readonly ci_dir=$(CDPATH= cd -- "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly repository=$(dirname "$ci_dir")
export PATH=$PATH:/usr/sbin:/sbin # dockerd, sshd, ip and iptables, also for users whose PATH is short

log() { printf 'ci: %s\n' "$*" >&2; }

die() {
    log "error: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Seconds since the epoch with three decimals. EPOCHREALTIME writes the locale's decimal separator.
now() { printf '%s' "${EPOCHREALTIME/,/.}"; }

# step TITLE COMMAND...: run COMMAND, keep its output for a failure only, log one line with its time.
step() {
    local title=$1 started output status=0
    shift
    started=$(now)
    output=$(mktemp)
    "$@" >"$output" 2>&1 </dev/null || status=$?
    if ((status == 0)); then
        log "$(printf '%-44s %6.1f s' "$title" "$(awk -v a="$started" -v b="$(now)" 'BEGIN { print b - a }')")"
    else
        sed 's/^/    /' "$output" | tail -n 40 >&2
    fi
    rm -f "$output"
    ((status == 0)) || die "$title: failed with status $status; its last lines are above"
}

# retry COMMAND...: package mirrors time out and another apt may hold the lock; three tries, five seconds apart.
retry() {
    local try
    for try in 1 2 3; do
        "$@" && return 0
        echo "try $try of 3 failed: $*"
        ((try == 3)) || sleep 5
    done
    return 1
}

# as_root COMMAND...: directly for root, through sudo (which must not ask) for anybody else.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n -- "$@"
    else
        echo "root rights are needed for: $*"
        echo "run as root, or as a user whose sudo asks for no password"
        return 1
    fi
}
