# shellcheck shell=sh
# $1: the deployment's directory; $2: data_dir; then the releases to keep, that which runs first. Virtualenvs that no
# release of any deployment uses go, too, but not within a day: one may just have been made for a release to come.
. lib/absolute.sh
set -e
umask 077
cd "$1/app"
env=$(absolute "$2")/env
shift 2
: > "releases/$1/.started"
printf '%s\n' "$@" > current.new
mv -f current.new current
for each in releases/*; do
    case " $* " in *" ${each#releases/} "*) ;; *) rm -rf -- "$each" ;; esac
done
cd "$env"
used=" $(for each in ../*/app/releases/*/env; do readlink "$each" || true; done | sed 's|.*/||' | tr '\n' ' ') "
find . -maxdepth 1 -type l -mtime +0 | while read -r each; do
    name=${each#./}
    case $used in *" $name "*) ;; *) rm -rf -- "$name" "$name".* ;; esac
done
