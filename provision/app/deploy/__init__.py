"""The app under gunicorn on the hosts of a deployment."""
