"""The indexes of the shop."""

import os

from pymongo import MongoClient

shop = MongoClient(os.environ["MONGODB_URI"]).get_default_database("shop")
shop.users.create_index("email", unique=True)
shop.orders.create_index("user_id")
shop.orders.create_index("sent")
print("Created 3 indexes")
