# shellcheck shell=sh
# $1: the deployment's directory; $2: the program above.
read -r latest < "$1/app/current" && cd "$1/app/releases/$latest" && env/bin/python -I -c "$2" serve.json
