"""Inserts orders into PostgreSQL, over the network that the run's policy allows, with psycopg2.

    mayfly run --image database --handler examples/orders/handler.py --event examples/orders/event.json \\
      --env DATABASE_URL=postgresql://shop@db.example.com/shop --allow db.example.com:5432
"""
import os

import psycopg2

INSERT = "INSERT INTO orders (item, amount) VALUES (%(item)s, %(amount)s) RETURNING id"


def handler(event, context):
    connection = psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=10)
    try:
        with connection, connection.cursor() as cursor:
            ids = []
            for order in event["data"]["orders"]:
                cursor.execute(INSERT, order)
                ids.append(cursor.fetchone()[0])
        return {"inserted": ids}
    finally:
        connection.close()
