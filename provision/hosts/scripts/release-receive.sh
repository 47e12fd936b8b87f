# shellcheck shell=sh
# $1: the release's directory; $2: its link to the virtualenv; $3: sha256 of the archive on standard input.
. lib/digest.sh
. lib/incoming.sh
set -e
umask 077
mkdir -p -- "$(dirname "$1")"
cd -- "$(dirname "$1")"
incoming ""
failed() {
    # tar does not always say why it could write no more.
    [ "$(df -Pk . | awk 'NR == 2 {print $4}')" -gt 16 ] || echo "No space left on device" >&2
    rm -rf "$t"
}
trap failed EXIT
trap 'exit 1' HUP TERM INT
mkdir "$t" "$t/release"
cat > "$t/tar"
[ "$(sha256_of "$t/tar")" = "$3" ] || exit 65
tar -xpf "$t/tar" -C "$t/release"
ln -s "$2" "$t/release/env"
rm -rf -- "$1"
mv -- "$t/release" "$1"
rm -rf "$t"
trap - EXIT
