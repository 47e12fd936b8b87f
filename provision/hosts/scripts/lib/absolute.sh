# shellcheck shell=sh
# shellcheck disable=SC2088 # a ~ as it was typed
# absolute PATH: prints it from the root; relative ones are taken from the home directory.
absolute() {
    case "$1" in
        "~") printf '%s' "$HOME" ;;
        "~/"*) printf '%s' "$HOME/${1#"~/"}" ;;
        /*) printf '%s' "$1" ;;
        *) printf '%s' "$HOME/$1" ;;
    esac
}
