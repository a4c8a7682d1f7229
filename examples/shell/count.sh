#!/bin/sh
# Any executable works: the event on stdin, the result on stdout, logs on stderr, exit status 0 for success.
bytes=$(wc -c)
echo "the event has $bytes bytes" >&2
printf '{"bytes": %d}\n' "$bytes"
