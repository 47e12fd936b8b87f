"""The development environment of a Flask + MongoDB app: set-up, MongoDB, and the running app."""

VERSION = "0.1.0"
