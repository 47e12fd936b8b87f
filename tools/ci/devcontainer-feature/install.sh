#!/bin/sh
# Installs provision when the container is built, for all of its users. The option `package` comes in PACKAGE.
set -eu
PROVISION_HOME=/usr/local/share/provision PROVISION_PACKAGE=${PACKAGE:-flaskbook-provision} \
    sh "$(dirname "$0")/mongodb.sh" install
