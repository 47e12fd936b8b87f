# shellcheck shell=sh
# shellcheck disable=SC2034,SC2086 # t is for the script; words are split on purpose
# What arrives has a place of its own beside what it becomes, named after the shell that receives it and when that began.
# incoming PREFIX: sets t to that place, and removes those of shells that are gone. Another's that still receives stays:
# two commands, or two people, may bring something to one directory at the same time.
begun() {
    { read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 0
    set -- ${stat##*) }
    echo "${20}"
}
incoming() {
    for old in "$1".incoming.*; do
        receiver=${old##*.incoming.}
        [ "$(begun "${receiver%-*}")" = "${receiver#*-}" ] || rm -rf -- "$old"
    done
    t=$1.incoming.$$-$(begun $$)
}
