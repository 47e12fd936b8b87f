"""Stands for connexion: its app holds the one of Flask."""

from flask import Flask


class FlaskApp:
    def __init__(self, name):
        self.app = Flask(name)

    def __call__(self, environ, start_response):
        return self.app(environ, start_response)
