#!/bin/sh
# The same with psql as it is: the event is a variable of SQL, and PostgreSQL takes it apart.
#
#   mayfly run --image database --exec examples/orders/insert.sh --event examples/orders/event.json \
#     --env DATABASE_URL=postgresql://shop@db.example.com/shop --allow db.example.com:5432
event=$(cat)
exec psql -X -qAt --set ON_ERROR_STOP=1 --set "event=$event" "$DATABASE_URL" <<'SQL'
WITH inserted AS (
  INSERT INTO orders (item, amount)
  SELECT item, amount FROM jsonb_to_recordset(:'event'::jsonb #> '{data,orders}') AS o (item text, amount integer)
  RETURNING id
)
SELECT json_build_object('inserted', json_agg(id ORDER BY id)) FROM inserted;
SQL
