/**
 * Goal: what a connection speaks is judged as well as where it goes: TLS by the name that everybody can read, HTTP
 * request by request. Method: the real broker between a scripted guest and real servers of Node on loopback.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import http2 from 'node:http2';
import { connect as dial } from 'node:net';
import { afterEach, test } from 'node:test';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { EgressBroker } from '../../../src/egress/broker.ts';
import { parseNetworkFile } from '../../../src/egress/parse.ts';
import { selfSigned } from '../../vm/certificates.ts';
import { clock } from '../../vm/rig.ts';
import { listening, tcpServer } from '../../vm/servers.ts';
import type { Closer } from '../../vm/servers.ts';
import { clientHello, recordsOf } from './hello.ts';
import { GuestSocket, lookUp, readAll } from './guest.ts';

/** Every dial leads to `port` on loopback. */
function brokerTo(port: number, policy: unknown): EgressBroker {
  return new EgressBroker({
    policy: parseNetworkFile(JSON.stringify(policy)), clock,
    network: {
      resolve: async () => ['8.8.8.8'],
      dial: () => dial({ host: '127.0.0.1', port, allowHalfOpen: true }),
    },
  });
}

const opened: GuestSocket[] = [];
afterEach(() => { for (const socket of opened.splice(0)) socket.destroy(); });

function named(broker: EgressBroker, name: string, port: number): GuestSocket {
  const socket = new GuestSocket(broker, lookUp(broker, name), port);
  opened.push(socket.on('error', () => {}));
  return socket;
}

// ---- TLS ------------------------------------------------------------------------------------------------------------

async function tlsServer(t: Closer): Promise<number> {
  const server = createTlsServer(selfSigned(['a.test']), (socket) => socket.on('error', () => {}).end('hello'));
  server.on('tlsClientError', () => {});
  return await listening(t, server);
}

test('TLS passes for the name that was allowed, is on record, and fails for any other', async (t) => {
  const port = await tlsServer(t);
  const broker = brokerTo(port, { rules: [{ allow: '*.test' }] });
  const speak = async (servername: string, more: object = {}): Promise<string> => {
    const socket = named(broker, 'a.test', 443);
    return await readAll(connectTls({ socket, servername, rejectUnauthorized: false, ...more }));
  };
  assert.equal(await speak('A.test', { ALPNProtocols: ['x'] }), 'hello');
  assert.match(await speak('b.test'), /ALERT_ACCESS_DENIED|ERR_SSL/);
  assert.match(await speak(''), /ALERT_ACCESS_DENIED|ERR_SSL/);
  const [good, bad, none] = broker.report().flows;
  assert.deepEqual({ ...good?.tls, ja4: '' }, { serverName: 'a.test', alpn: ['x'], ech: false, ja4: '' });
  assert.match(good?.tls?.ja4 ?? '', /^t13d/);
  assert.deepEqual([good?.protocol, good?.verdict], ['tls', 'allowed']);
  assert.deepEqual([bad?.verdict, none?.verdict], ['denied', 'denied']);
  assert.match(bad?.because ?? '', /the server name b\.test is not a\.test/);
  assert.match(none?.because ?? '', /names no server; a\.test was allowed/);
});

test('the profile says what becomes of TLS without a name and of ECH; audit records both', async (t) => {
  const port = await tcpServer(t, (socket) => socket.once('data', () => socket.end('reached')));
  const rules = [{ allow: 'a.test' }];
  const said = async (policy: object, bytes: Buffer): Promise<string> => {
    const broker = brokerTo(port, policy);
    const socket = named(broker, 'a.test', 443);
    socket.write(bytes);
    const text = await readAll(socket);
    return `${text.includes('reached') ? 'reached' : 'refused'}: ${broker.report().flows[0]?.because}`;
  };
  const ech = recordsOf(clientHello({ name: 'a.test', extra: [[0xfe0d, Buffer.alloc(9)]] }), 99);
  const other = recordsOf(clientHello({ name: 'b.test' }), 99);
  const nameless = recordsOf(clientHello({}), 99);
  const old = Buffer.from('802e0103010015000000100000050000040000', 'hex');
  assert.match(await said({ rules }, ech), /refused: .*ECH/);
  assert.match(await said({ rules, tls: { ech: 'allow' } }, ech), /reached: rule 1/);
  assert.match(await said({ rules }, nameless), /refused: .*names no server/);
  assert.match(await said({ rules, tls: { noName: 'allow' } }, nameless), /reached/);
  assert.match(await said({ rules }, old), /refused: .*names no server/);
  assert.match(await said({ rules }, other), /refused: .*b\.test is not a\.test/);
  assert.match(await said({ mode: 'audit' }, other), /reached: audit.*b\.test is not a\.test/);
  assert.match(await said({ rules }, Buffer.from('160301000401ffffff', 'hex')), /refused: the ClientHello is too long/);
  assert.match(await said({ rules: [{ allow: 'a.test', protocol: 'http' }] }, other), /refused: no rule allows it/);
});

test('a second ClientHello, which a server has asked for, must have the same name', async (t) => {
  const retry = Buffer.concat([
    Buffer.from('160303002a0200002603 03'.replace(' ', ''), 'hex'),
    Buffer.from('cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c', 'hex'), Buffer.alloc(4),
  ]);
  const seen: string[] = [];
  const port = await tcpServer(t, (socket) => {
    socket.on('data', (chunk: Buffer) => {
      seen.push(/[ab]\.test/.exec(chunk.toString('latin1'))?.[0] ?? '?');
      if (seen.length === 1) socket.write(retry);
      else socket.end('done');
    });
  });
  const change = Buffer.from('140303000101', 'hex');
  for (const [second, wanted] of [['a.test', ['a.test', 'a.test']], ['b.test', ['a.test']]] as const) {
    for (const atOnce of [true, false]) {
      seen.length = 0;
      const broker = brokerTo(port, { rules: [{ allow: '*.test' }] });
      const socket = named(broker, 'a.test', 443);
      const one = recordsOf(clientHello({ name: 'a.test' }), 999);
      const two = Buffer.concat([change, recordsOf(clientHello({ name: second }), 60)]);
      if (atOnce) socket.write(Buffer.concat([one, two]));
      else {
        socket.write(one);
        socket.once('data', () => socket.write(two));
      }
      await readAll(socket);
      assert.deepEqual(seen, wanted, `${second} ${atOnce}`);
      assert.equal(broker.report().flows[0]?.verdict, second === 'a.test' ? 'allowed' : 'denied');
    }
  }
});

// ---- HTTP -----------------------------------------------------------------------------------------------------------

interface Seen {
  readonly port: number;
  readonly requests: string[];
}

async function httpServer(t: Closer): Promise<Seen> {
  const requests: string[] = [];
  const server = createServer((incoming, response) => {
    let body = '';
    incoming.setEncoding('utf8').on('data', (chunk: string) => { body += chunk; });
    incoming.on('end', () => {
      requests.push(`${incoming.method} ${incoming.headers.host}${incoming.url} ${body}`.trim());
      if (incoming.url === '/away') response.writeHead(302, { location: 'http://other.test/' });
      response.end(`ok ${incoming.headers['x-mine'] ?? ''}`);
    });
  });
  server.on('upgrade', (_incoming, socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst');
    socket.pipe(socket);
  });
  return { port: await listening(t, server), requests };
}

interface Answer {
  readonly status: number | undefined;
  readonly text: string;
  readonly headers: IncomingMessage['headers'];
}

async function ask(socket: GuestSocket, method: string, path: string, host: string, body?: string): Promise<Answer> {
  const headers = { host, 'x-mine': 'yes' };
  const sending = request({ createConnection: () => socket as never, method, path, headers });
  sending.end(body);
  const [response] = (await once(sending, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode, text, headers: response.headers };
}

const RULES = [
  { allow: '*.test', methods: ['GET', 'POST'] },
  { deny: 'a.test', methods: 'POST', paths: ['/admin/*', '/exact'] },
  { deny: '*.test', paths: ['/secret'] },
];

test('each request meets the rules about methods and paths; a refusal names the rule', async (t) => {
  const { port, requests } = await httpServer(t);
  const broker = brokerTo(port, { rules: RULES });
  const one = (method: string, path: string, body?: string): Promise<Answer> =>
    ask(named(broker, 'a.test', 80), method, path, 'a.test', body);
  const good = await one('POST', '/x?admin=1', 'body');
  assert.deepEqual([good.status, good.text], [200, 'ok yes']);
  const bad = await one('POST', '/admin/x');
  assert.equal(bad.status, 403);
  assert.equal(bad.text, 'mayfly: denied: rule 2: deny POST /admin/*,/exact of a.test\n');
  for (const [method, path, why] of [
    ['POST', '/exact', /rule 2/], ['GET', '/secret', /rule 3/], ['PUT', '/x', /no rule allows it/],
    ['GET', '/a/../secret', /more than one way/], ['GET', '/%73ecret', /rule 3/],
    ['GET', '//secret', /more than one way/], ['GET', '/%2e%2e/secret', /more than one way/],
    ['GET', '/secret;x', /more than one way/],
    ['GET', '/a\\..\\secret', /more than one way/],
  ] as const) {
    const { status, text } = await one(method, path);
    assert.equal(status, 403, path);
    assert.match(text, why, path);
  }
  assert.equal((await one('GET', '/exact')).status, 200);
  assert.deepEqual(requests, ['POST a.test/x?admin=1 body', 'GET a.test/exact']);
  const { requests: log, totals } = broker.report();
  assert.deepEqual([totals.requests, totals.requestsDenied], [12, 10]);
  const { at: _at, ...first } = log[0] ?? { at: 0 };
  assert.deepEqual(first, {
    host: 'a.test', port: 80, method: 'POST', path: '/x', status: 200,
    verdict: 'allowed', because: 'rule 1: allow GET,POST of *.test',
  });
});

test('B8: a host that is not the one that was allowed, CONNECT, and absolute targets', async (t) => {
  const { port, requests } = await httpServer(t);
  const broker = brokerTo(port, { rules: [{ allow: '*.test' }] });
  const raw = async (text: string, name = 'a.test'): Promise<string> => {
    const socket = named(broker, name, 80);
    socket.end(text);
    return (await readAll(socket)).replace(/Date:.*\r\n/, '').split('\r\n\r\n').at(-1) ?? '';
  };
  for (const [text, why] of [
    ['GET / HTTP/1.1\r\nHost: b.test\r\n\r\n', /the host b\.test is not a\.test/],
    ['GET / HTTP/1.1\r\nHost: a.test:81\r\n\r\n', /does not name one host/],
    ['GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n', /does not name one host/],
    ['GET / HTTP/1.1\r\n\r\n', /does not name one host/],
    ['GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n', /does not name one host/],
    ['CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n', /CONNECT/],
    ['get / HTTP/1.1\r\nHost: a.test\r\n\r\n', /no valid HTTP/],
    ['\r\n\r\nGET / HTTP/1.1\r\nHost : a.test\r\n\r\n', /no valid HTTP/],
    ['POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      /no valid HTTP/],
    ['POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd', /no valid HTTP/],
    ['POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n', /transfer coding/],
    ['GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n', /no valid HTTP/],
  ] as const) {
    assert.match(await raw(text), why, text);
  }
  assert.deepEqual(requests, []);
  await raw('GET http://a.test/abs HTTP/1.1\r\nHost: A.TEST\r\nConnection: close, x-mine\r\nX-Mine: no\r\n\r\n');
  assert.deepEqual(requests, ['GET a.test/abs']);
});

test('requests one after another on one connection are judged one by one, what is smuggled as well', async (t) => {
  const { port, requests } = await httpServer(t);
  const broker = brokerTo(port, { rules: RULES });
  const socket = named(broker, 'a.test', 80);
  socket.end([
    'GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n',
    'POST /2 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    'GET /secret HTTP/1.1\r\nHost: a.test\r\n\r\n', 'GET /4 HTTP/1.1\r\nHost: a.test\r\n\r\n',
  ].join(''));
  const text = await readAll(socket);
  assert.equal(text.match(/HTTP\/1\.1 200/g)?.length, 2, text);
  assert.match(text, /403 Forbidden.*rule 3/s);
  assert.deepEqual(requests, ['GET a.test/1', 'POST a.test/2 abc']);
});

test('a redirect is told to the guest and followed by nobody; a websocket opens after its verdict', async (t) => {
  const { port } = await httpServer(t);
  const broker = brokerTo(port, { rules: RULES });
  const { status, headers } = await ask(named(broker, 'a.test', 80), 'GET', '/away', 'a.test');
  assert.deepEqual([status, headers.location], [302, 'http://other.test/']);
  const open = (path: string): Promise<string> => {
    const socket = named(broker, 'a.test', 80);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
    setTimeout(() => socket.end('echo'), 100);
    return readAll(socket);
  };
  assert.match(await open('/ws'), /101 Switching.*firstecho$/s);
  assert.match(await open('/secret'), /403.*rule 3/s);
  assert.equal(broker.report().requests.find(({ status: code }) => code === 101)?.path, '/ws');
});

test('a request line in pieces, or with a pause in it, is still one request', async (t) => {
  const { port, requests } = await httpServer(t);
  const broker = brokerTo(port, { rules: RULES });
  const slowly = named(broker, 'a.test', 80);
  const slow = Buffer.from('GET /slow HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n');
  for (const byte of slow) slowly.write(Buffer.from([byte]));
  assert.match(await readAll(slowly), /200 OK/);
  const sly = named(broker, 'a.test', 80);
  sly.write('get /');
  sly.write('secret HTTP/1.1\r\nHost: b.test\r\n\r\n');
  assert.match(await readAll(sly), /ECONNRESET/);
  assert.deepEqual(requests, ['GET a.test/slow']);
  const paused = brokerTo(port, { rules: [{ allow: 'a.test' }] });
  const later = named(paused, 'a.test', 80);
  later.write('GET /x');
  setTimeout(() => later.end(' HTTP/1.1\r\nHost: b.test\r\n\r\n'), 2_300);
  assert.match(await readAll(later), /ECONNRESET/);
  assert.match(paused.report().flows[0]?.because ?? '', /came in pieces/);
});

test('HTTP/2 without TLS: each stream is judged, trailers pass', async (t) => {
  const seen: string[] = [];
  const server = http2.createServer();
  server.on('stream', (stream, headers) => {
    seen.push(`${headers[':method']} ${headers[':authority']}${headers[':path']}`);
    stream.respond({ ':status': 200 }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.pipe(stream);
  });
  const sessions: http2.ServerHttp2Session[] = [];
  server.on('session', (session) => sessions.push(session));
  t.after(() => { for (const session of sessions) session.destroy(); });
  const port = await listening(t, server);
  const broker = brokerTo(port, { rules: RULES });
  const socket = named(broker, 'a.test', 80);
  const client = http2.connect('http://a.test', { createConnection: () => socket });
  const one = async (headers: object, body = ''): Promise<string> => {
    const stream = client.request({ ':path': '/', ...headers }, { endStream: body === '' });
    if (body !== '') stream.end(body);
    let [status, text, trailers] = [0, '', ''];
    stream.on('response', (answer) => { status = Number(answer[':status']); });
    stream.on('trailers', (given: http2.IncomingHttpHeaders) => { trailers = String(given['grpc-status']); });
    stream.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; });
    await once(stream, 'close');
    return `${status} ${text}${trailers}`;
  };
  assert.equal(await one({ ':method': 'POST', ':path': '/echo' }, 'body '), '200 body 0');
  assert.match(await one({ ':method': 'GET', ':path': '/secret' }), /^403 .*rule 3/);
  assert.match(await one({ ':authority': 'b.test' }), /^403 .*b\.test is not a\.test/);
  assert.match(await one({ ':path': '/x', host: 'b.test' }), /^403 .*b\.test is not a\.test/);
  assert.deepEqual(seen, ['POST a.test/echo']);
  client.close();
});

test('a guest that never reads its answers, and one that floods requests, hold what their windows hold', async (t) => {
  const large = Buffer.alloc(8 << 20);
  const server = createServer((_request, response) => response.end(large));
  const port = await listening(t, server);
  const broker = brokerTo(port, { rules: [{ allow: '*.test' }] });
  const before = process.memoryUsage();
  const sockets = Array.from({ length: 20 }, () => named(broker, 'a.test', 80));
  for (const socket of sockets) {
    socket.on('error', () => {});
    socket.write('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n'.repeat(30));
  }
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const after = process.memoryUsage();
  const grown = after.arrayBuffers + after.heapUsed - before.arrayBuffers - before.heapUsed;
  t.diagnostic(`${Math.round(grown / 1024)} KiB for 20 connections`);
  assert.ok(grown < 24 << 20, `${grown} bytes`);
  const flood = named(broker, 'a.test', 80);
  flood.write('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n'.repeat(500));
  assert.match(await readAll(flood), /ECONNRESET/);
  for (const socket of sockets) socket.destroy();
});
