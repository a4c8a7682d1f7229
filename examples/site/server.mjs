// A site: an ordinary server that knows nothing of Mayfly. It listens on the port that PORT names.
//
//   mayfly run --handler examples/site/server.mjs --code examples/site --port 8080 --event examples/site/event.json
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';

const pages = new Map([['/', 'index.html'], ['/style.css', 'style.css']]);
const types = { html: 'text/html; charset=utf-8', css: 'text/css' };

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://site');
  console.log(`${request.method} ${pathname}`);
  if (pathname === '/api/sum') {
    const numbers = searchParams.getAll('n').map(Number);
    response.writeHead(200, { 'content-type': 'application/json' });
    return response.end(JSON.stringify({ sum: numbers.reduce((a, b) => a + b, 0) }));
  }
  if (pathname === '/api/echo' && request.method === 'POST') {
    response.writeHead(201, { 'content-type': request.headers['content-type'] ?? 'application/octet-stream' });
    return request.pipe(response);
  }
  const page = pages.get(pathname);
  if (page === undefined) {
    response.writeHead(404, { 'content-type': 'text/plain' });
    return response.end('not here\n');
  }
  response.writeHead(200, { 'content-type': types[page.split('.').pop()] });
  response.end(await readFile(new URL(`public/${page}`, import.meta.url)));
}).listen(process.env.PORT, '127.0.0.1');
