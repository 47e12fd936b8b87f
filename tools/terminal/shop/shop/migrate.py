"""The indexes of the shop."""

import os
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database

shop: Database[Any] = MongoClient(os.environ["MONGODB_URI"]).get_default_database("shop")
shop.users.create_index("email", unique=True)
shop.orders.create_index("user_id")
shop.orders.create_index("sent")
print("Created 3 indexes")
