#!/bin/sh
# The event comes on stdin; what goes to stdout is the result.
exec jq -c --arg field "${FIELD}" -f /app/sum.jq
