"""Dumps of databases: folders as `mongodump` writes them, and what `mongorestore` makes of them, without either."""
