"""Stands for Flask-SocketIO: it has a server of its own."""

from werkzeug.serving import make_server


class SocketIO:
    def __init__(self, app):
        app.extensions["socketio"] = self

    def run(self, app, host, port):
        make_server(host, port, app, threaded=True).serve_forever()
