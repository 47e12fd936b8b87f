# shellcheck shell=sh
# shellcheck disable=SC2012 # names of packages are plain
packages() {
    (cd "$1" && ls -d lib/python*/site-packages/*.dist-info | LC_ALL=C sort)
}
