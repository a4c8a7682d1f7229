#!/bin/sh
# A static site: BusyBox's httpd as it is, in the image `web`.
#
#   mayfly run --image web --exec examples/static-site/serve.sh --code examples/static-site --port 8080 \
#     --data '{"path": "/hello.txt"}'
exec /bin/busybox httpd -f -p "127.0.0.1:$PORT" -h /function/public
