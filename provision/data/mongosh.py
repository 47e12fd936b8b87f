"""What mongosh is given: https://www.mongodb.com/docs/mongodb-shell/write-scripts/"""

from __future__ import annotations

import json

GET_MONGOSH = "npm install -g mongosh"


def connect_script(uri: str, database: str) -> str:
    """JavaScript for mongosh that deletes its own file and binds ``db``.

    Args:
        database: the database that ``db`` stands for. It is not written into the connection string, where it
            would also say which database knows the user.
    """
    return (
        'require("fs").unlinkSync(__filename);\n'
        f"db = connect({json.dumps(uri)}).getSiblingDB({json.dumps(database)});\n"
    )
