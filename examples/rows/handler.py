"""Inserts rows into a SQLite database and reads them back, with Python's module and with the program sqlite3.

The database lives as long as its clone. One that outlives it is in examples/orders: PostgreSQL, over the network.
"""
import json
import sqlite3
import subprocess

PATH = "/tmp/rows.db"


def handler(event, context):
    with sqlite3.connect(PATH) as database:
        database.execute("CREATE TABLE orders (item TEXT NOT NULL, amount INTEGER NOT NULL CHECK (amount > 0))")
        database.executemany("INSERT INTO orders VALUES (:item, :amount)", event["data"]["orders"])
    database.close()
    query = "SELECT item, sum(amount) AS amount FROM orders GROUP BY item ORDER BY item"
    return {
        "totals": json.loads(run("sqlite3", "-safe", "-json", "-readonly", PATH, query)),
        "psql": run("psql", "--version").strip(),
    }


def run(*command):
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()
