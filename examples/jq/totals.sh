#!/bin/sh
# The event is on stdin: jq makes the result of it.
exec jq -c '.data.orders | group_by(.item) | map({item: .[0].item, amount: (map(.amount) | add)})'
