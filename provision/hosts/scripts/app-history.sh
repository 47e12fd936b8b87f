# shellcheck shell=sh
# $1: the deployment's directory. Prints the releases that have run, the latest first, and `again` if that one is not
# what was started last, or its virtualenv was made after that.
cd "$1/app" 2>/dev/null && [ -s current ] || exit 0
cat current
read -r latest < current
[ "releases/$latest/.started" -nt "releases/$latest/env/.complete" ] || echo again
