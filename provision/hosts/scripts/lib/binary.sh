# shellcheck shell=sh
# For scripts that receive a binary. $1: data_dir; $2: its place there; $3: its sha256. They write it to "$t", then call
# `arrived`, which moves it into place if it is what was sent.
. lib/absolute.sh
. lib/digest.sh
. lib/incoming.sh
set -e
umask 077
f=$(absolute "$1")/$2
mkdir -p -- "$(dirname "$f")"
incoming "$f"
trap 'rm -f "$t"' EXIT
trap 'exit 1' HUP TERM INT
digest=$3
arrived() {
    [ "$(sha256_of "$t")" = "$digest" ] || exit 65
    chmod 0700 "$t"
    mv -f "$t" "$f"
}
