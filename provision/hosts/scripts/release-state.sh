# shellcheck shell=sh
# $1: the release's directory; $2: its link to the virtualenv; $3: sha256 of its MANIFEST.
cd "$1" 2>/dev/null || { echo absent; exit 0; }
if [ "$(readlink env)" = "$2" ] && [ "$(sha256sum < MANIFEST | cut -d' ' -f1)" = "$3" ] && sha256sum -c MANIFEST >/dev/null
then echo right
else echo drifted; fi 2>/dev/null
