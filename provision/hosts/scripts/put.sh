# shellcheck shell=sh
# Each file is moved into place whole.
. lib/incoming.sh
set -e
umask 077
mkdir -p -- "$1"
cd -- "$1"
incoming ""
trap 'rm -rf "$t"' EXIT
mkdir "$t"
tar -xpf - -C "$t" || {
    # tar does not say why it could write no more.
    [ "$(df -Pk . | awk 'NR == 2 {print $4}')" -gt 16 ] || echo "No space left on device" >&2
    exit 1
}
for f in "$t"/* "$t"/.[!.]*; do
    [ ! -e "$f" ] || mv -f -- "$f" .
done
