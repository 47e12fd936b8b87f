# shellcheck shell=sh
# $1: data_dir; $2: its name; $3: the Python; $4: index or wheels; $5: sha256 of the archive on standard input;
# $6: the wheel of setuptools that belongs into each virtualenv of this Python, or empty.
# Each attempt has a directory of its own, for the process of one whose connection was lost may still write.
. lib/absolute.sh
. lib/digest.sh
. lib/packages.sh
set -e
umask 077
d=$(absolute "$1")/env
name=$2 python=$3 source=$4 digest=$5 setuptools=$6
mkdir -p -- "$d"
cd -- "$d"
now=$(readlink "$name" || true)
for each in "$name".*; do [ "$each" = "$now" ] || rm -rf -- "$each"; done
t=$name.$$
failed() {
    # pip does not always say why it could write no more.
    [ "$(df -Pk . | awk 'NR == 2 {print $4}')" -gt 16 ] || echo "No space left on device" >&2
    cd "$d"
    rm -rf -- "$t"
}
trap failed EXIT
trap 'exit 1' HUP TERM INT
mkdir "$t" "$t/.sent"
cat > "$t/.sent.tar"
[ "$(sha256_of "$t/.sent.tar")" = "$digest" ] || exit 65
tar -xf "$t/.sent.tar" -C "$t/.sent"
rm "$t/.sent.tar"
# pip runs from its wheel where that was sent: to install pip takes longer than most of what it is to install.
set -- "$t"/.sent/pip/pip-*.whl
if [ -f "$1" ]; then
    "$python" -I -m venv --without-pip "$t"
    set -- "$t/bin/python" -I "$1/pip" install
else
    "$python" -I -m venv "$t"
    set -- "$t/bin/python" -I -m pip install
fi
if [ "$source" = index ]; then
    set -- "$@" --retries 0 --timeout 10 -c "$t/.sent/constraints.txt"
else
    set -- "$@" --isolated --no-index --no-deps --require-hashes --find-links "$t/.sent/wheels"
fi
TMPDIR=$d/$t/.sent "$@" --quiet --no-input --no-cache-dir --disable-pip-version-check -r "$t/.sent/requirements.txt" >&2
rm -rf "$t/.sent"
if [ "$setuptools" ] && [ -z "$(find "$t"/lib/python*/site-packages -maxdepth 1 -name setuptools)" ]; then
    "$python" -I -m zipfile -e "$setuptools" "$t"/lib/python*/site-packages
fi
packages "$t" > "$t/.complete.new"
mv "$t/.complete.new" "$t/.complete"
ln -sfn "$t" "$name"
trap - EXIT
[ -z "$now" ] || [ "$now" = "$t" ] || rm -rf -- "$now"
