import os

MONGODB_SETTINGS = {
    "db": os.environ.get("MONGODB_NAME", "library"),
    "host": os.environ.get("MONGODB_HOST", "localhost"),
    "port": int(os.environ.get("MONGODB_PORT", 27017)),
}
