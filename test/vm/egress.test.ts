/**
 * The network of real clones. Goal: unmodified programs reach what the policy allows and nothing else, at once and with
 * the errors that programs understand; bytes, half-closes and resets are what they would be without Mayfly; nothing is
 * left over after a thousand connections. Method: servers and a DNS server on loopback, programs in real clones.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { promisify } from 'node:util';
import type { Template } from '../../src/clone/template.ts';
import type { EgressReport } from '../../src/egress/report.ts';
import { file, run as runIn, script } from './guest.ts';
import type { Order, Outcome } from './guest.ts';
import { home, inFolder, mebibyte, openRig } from './rig.ts';
import type { Rig } from './rig.ts';
import { brokerFor, dnsServer, listening, tcpServer } from './servers.ts';
import type { Closer } from './servers.ts';

let rig: Rig;
let shell: Template;

before(async () => {
  rig = await openRig();
  shell = await rig.template('shell');
});

const run = (order: Order): Promise<Outcome> => runIn(rig, shell, order);

const LOOPBACK = { cidr: '127.0.0.1/32', private: true };

async function httpServer(closer: Closer): Promise<{ readonly port: number; readonly seen: string[] }> {
  const seen: string[] = [];
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.headers.host}${request.url}`);
    request.resume();
    request.on('end', () => response.end(`hello from ${request.url}`));
  });
  return { port: await listening(closer, server), seen };
}

test('busybox wget reaches an allowed name and is refused another one, both at once', async (t) => {
  const { port, seen } = await httpServer(t);
  const dns = await dnsServer(t, { 'api.test': ['127.0.0.1'], 'other.test': ['127.0.0.1'] });
  const broker = brokerFor({ rules: [{ allow: `api.test:${port}`, ...LOOPBACK }] }, dns);
  const { text } = await run({
    ...script(
      `wget -q -O - http://api.test:${port}/one; echo`,
      `wget -q -O - http://other.test:${port}/ 2>&1`,
      `wget -q -O - http://127.0.0.2:${port}/ 2>&1`,
      `wget -q -O - http://api.test:${port + 1}/ 2>&1`,
      `wget -q -O - http://10.1.2.3:${port}/ 2>&1`,
      'true',
    ),
    broker,
  });
  const lines = text.split('\n');
  assert.equal(lines[0], 'hello from /one');
  assert.match(lines[1] ?? '', /bad address/);
  for (const line of lines.slice(2, 5)) assert.match(line, /Connection refused/);
  assert.deepEqual(seen, [`GET api.test:${port}/one`]);
  const { totals, flows, queries } = broker.report();
  assert.deepEqual(flows.map(({ name, verdict }) => [name, verdict]), [
    ['api.test', 'allowed'], ['api.test', 'denied'], [null, 'denied'],
  ]);
  assert.equal(flows[0]?.address, '127.0.0.1');
  assert.match(flows[0]?.because ?? '', /^rule 1: allow api\.test at 127\.0\.0\.1\/32/);
  assert.ok(queries.some(({ name, verdict }) => name === 'other.test' && verdict === 'denied'));
  assert.equal(totals.receivedBytes > 100, true);
  assert.deepEqual(dns.asked, ['api.test'], 'a denied name was looked up');
});

const NODE_CLIENT = `
const [url, denied] = process.argv.slice(1);
const text = await (await fetch(url)).text();
const started = performance.now();
const why = await fetch(denied).then(() => 'reached', (error) => error.cause?.code ?? String(error));
console.log(JSON.stringify({ text, why, millis: performance.now() - started }));
`;

const PYTHON_CLIENT = `
import json, sys, time, urllib.request, urllib.error
text = urllib.request.urlopen(sys.argv[1]).read().decode()
started = time.monotonic()
try:
    urllib.request.urlopen(sys.argv[2])
    why = 'reached'
except urllib.error.URLError as error:
    why = type(error.reason).__name__
print(json.dumps({'text': text, 'why': why, 'millis': (time.monotonic() - started) * 1000}))
`;

for (const [image, argv, refused] of [
  ['node', ['/usr/bin/node', '--input-type=module', '-e', NODE_CLIENT], 'ECONNREFUSED'],
  ['python', ['/usr/bin/python3', '-c', PYTHON_CLIENT], 'ConnectionRefusedError'],
] as const) {
  test(`${image}: fetches what is allowed; what is denied is refused at once`, async (t) => {
    const { port } = await httpServer(t);
    const dns = await dnsServer(t, { 'www.api.test': ['127.0.0.1'] });
    const broker = brokerFor({ rules: [{ allow: `*.api.test:${port}`, ...LOOPBACK }] }, dns);
    const urls = [`http://www.api.test:${port}/a`, `http://127.0.0.1.:${port + 1}/`.replace('127.0.0.1.', '192.0.2.7')];
    const { text, log } = await runIn(rig, await rig.template(image), { argv: [...argv, ...urls], broker });
    const { why, millis, ...got } = JSON.parse(text || JSON.stringify({ log })) as Record<string, unknown>;
    assert.deepEqual([got['text'], why], ['hello from /a', refused], text + log);
    assert.ok(Number(millis) < 2000, `refused after ${millis} ms`);
  });
}

test('megabytes both ways keep their bytes; half-closes go through', async (t) => {
  const bytes = 6 * mebibyte;
  // Answers only when the guest has ended its half: with the digest, then what it sent.
  const port = await tcpServer(t, (socket) => {
    const parts: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => parts.push(chunk));
    socket.on('end', () => socket.end(Buffer.concat(parts)));
  });
  const broker = brokerFor({ rules: [{ allow: `127.0.0.1:${port}`, private: true }, { allow: '198.51.100.0/24' }] });
  const client = `
    const net = require('node:net'), crypto = require('node:crypto');
    const sent = crypto.randomBytes(${bytes}), hash = crypto.createHash('sha256');
    const socket = net.connect({ port: ${port}, host: 'data.test', allowHalfOpen: true });
    let got = 0;
    socket.on('data', (chunk) => { got += chunk.length; hash.update(chunk); });
    socket.on('end', () => {
      const same = hash.digest('hex') === crypto.createHash('sha256').update(sent).digest('hex');
      console.log(JSON.stringify({ got, same }));
    });
    socket.end(sent);`;
  const dns = await dnsServer(t, { 'data.test': ['127.0.0.1'] });
  const named = brokerFor({ rules: [{ allow: `data.test:${port}`, ...LOOPBACK }] }, dns);
  const node = await rig.template('node');
  const { text, log } = await runIn(rig, node, { argv: ['/usr/bin/node', '-e', client], broker: named });
  assert.equal(text, `${JSON.stringify({ got: bytes, same: true })}\n`, log);
  const { totals } = named.report();
  assert.deepEqual([totals.sentBytes, totals.receivedBytes], [bytes, bytes]);
  assert.equal(broker.report().totals.connections, 0);
});

test('a reset of the server arrives; a server that never reads holds up its client and nobody else', async (t) => {
  const port = await tcpServer(t, (socket) => {
    socket.once('data', (chunk: Buffer) => {
      if (chunk.toString().startsWith('reset')) socket.resetAndDestroy();
      else if (chunk.toString().startsWith('echo')) socket.end(chunk);
      else socket.pause();
    });
  });
  const client = `
    const net = require('node:net');
    const dial = () => net.connect(${port}, 'x.test');
    const stuck = dial();
    stuck.write(Buffer.alloc(48 << 20));
    const reset = dial();
    reset.write('reset');
    reset.on('error', (error) => {
      const echo = dial();
      echo.write('echo');
      echo.on('data', (data) => {
        console.log(error.code, String(data), stuck.writableLength > 0);
        process.exit(0);
      });
    });`;
  const dns = await dnsServer(t, { 'x.test': ['127.0.0.1'] });
  const broker = brokerFor({ rules: [{ allow: `x.test:${port}`, ...LOOPBACK }] }, dns);
  const { text, log } = await runIn(rig, await rig.template('node'), { argv: ['/usr/bin/node', '-e', client], broker });
  assert.equal(text, 'ECONNRESET echo true\n', log);
});

test('a thousand connections one after another leave nothing behind', async (t) => {
  const port = await tcpServer(t, (socket) => socket.end('x'));
  const client = `
    import socket, sys
    good = 0
    for i in range(1000):
        with socket.create_connection(('x.test', ${port})) as s:
            good += s.recv(10) == b'x' and s.recv(10) == b''
    print(good)`.replaceAll('\n    ', '\n');
  const dns = await dnsServer(t, { 'x.test': ['127.0.0.1'] });
  const rules = [{ allow: `x.test:${port}`, ...LOOPBACK }];
  const broker = brokerFor({ rules, limits: { connectionsPerSecond: 10_000 } }, dns);
  const started = performance.now();
  const { text, log } = await runIn(rig, await rig.template('python'), {
    argv: ['/usr/bin/python3', '-c', client], broker, wallMillis: 60_000,
  });
  assert.equal(text, '1000\n', log);
  assert.equal(broker.report().totals.connections, 1000);
  t.diagnostic(`${Math.round((performance.now() - started))} µs each`);
});

test('more connections at a time than there are places: refused, and the others go on', async (t) => {
  const port = await tcpServer(t, () => {});
  const client = `
    import socket
    held, refused = [], 0
    for i in range(140):
        s = socket.socket()
        try:
            s.connect(('x.test', ${port}))
            held.append(s)
        except ConnectionRefusedError:
            refused += 1
    for s in held: s.close()
    print(len(held), refused)`.replaceAll('\n    ', '\n');
  const dns = await dnsServer(t, { 'x.test': ['127.0.0.1'] });
  const broker = brokerFor({ rules: [{ allow: `x.test:${port}`, ...LOOPBACK }] }, dns);
  const python = await rig.template('python');
  const { text, log } = await runIn(rig, python, { argv: ['/usr/bin/python3', '-c', client], broker });
  assert.equal(text, '128 12\n', log);
});

test('other protocols have no path: UDP, ICMP, raw sockets, IPv6', async () => {
  const client = `
    import socket, json
    def attempt(work):
        try:
            return work()
        except OSError as error:
            return type(error).__name__ + ' ' + str(error.errno)
    def udp(address, family=socket.AF_INET):
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.settimeout(3)
        s.connect((address, 123))
        s.send(b'x')
        return s.recv(10).decode()
    def tcp6(address):
        s = socket.socket(socket.AF_INET6)
        s.settimeout(3)
        s.connect((address, 80))
        return 'connected'
    print(json.dumps([
        attempt(lambda: udp('192.0.2.1')), attempt(lambda: udp('127.0.0.1')),
        attempt(lambda: udp('2001:db8::1', socket.AF_INET6)),
        attempt(lambda: tcp6('2606:4700::1111')), attempt(lambda: tcp6('::ffff:192.0.2.1')),
        attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
        attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)),
        attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12).setsockopt(1, 36, 1)),
    ]))`.replaceAll('\n    ', '\n');
  const broker = brokerFor({ mode: 'audit' });
  const python = await rig.template('python');
  const { text, log } = await runIn(rig, python, { argv: ['/usr/bin/python3', '-c', client], broker });
  assert.deepEqual(JSON.parse(text || JSON.stringify(log)), [
    'ConnectionRefusedError 111', 'ConnectionRefusedError 111', 'OSError 101', 'OSError 101',
    'ConnectionRefusedError 111',
    'PermissionError 1', 'PermissionError 13', 'PermissionError 1', 'PermissionError 1',
  ]);
  assert.deepEqual(broker.report().flows.map(({ address, verdict }) => [address, verdict]), [['192.0.2.1', 'denied']]);
});

test('without a policy nothing is reached, and every attempt is on record', async () => {
  const broker = brokerFor({ mode: 'none' });
  const { text } = await run({
    ...script(
      'wget -q -O - http://example.com/ 2>&1', 'wget -q -O - http://1.1.1.1/ 2>&1',
      'nslookup -type=a x.test 2>&1 | tail -2', 'true',
    ),
    broker,
  });
  assert.match(text, /bad address.*Connection refused.*NXDOMAIN/s);
  const { totals } = broker.report();
  assert.deepEqual([totals.connections, totals.denied, totals.sentBytes], [1, 1, 0]);
  assert.ok(totals.queriesDenied >= 2);
});

test('programs of the workload talk to one another over loopback', async () => {
  const { text } = await run({
    ...script('(echo pong | nc -l -p 7777) &', 'sleep 0.3', 'nc 127.0.0.1 7777 </dev/null'),
    broker: brokerFor({ mode: 'none' }),
  });
  assert.equal(text, 'pong\n');
});

test('what a program wrote right before its end still arrives', async (t) => {
  const arrived = Promise.withResolvers<string>();
  const port = await tcpServer(t, (socket) => {
    const hash = createHash('sha256');
    let bytes = 0;
    socket.on('data', (chunk: Buffer) => { bytes += chunk.length; hash.update(chunk); });
    socket.on('end', () => arrived.resolve(`${bytes} ${hash.digest('hex')}`));
  });
  const dns = await dnsServer(t, { 'x.test': ['127.0.0.1'] });
  const broker = brokerFor({ rules: [{ allow: `x.test:${port}`, ...LOOPBACK }] }, dns);
  const { files = [], ...order } = script(`(cat /function/data; sleep 60) | nc x.test ${port} & sleep 1`);
  await run({ ...order, broker, files: [...files, file('data', 'z'.repeat(100_000))] });
  assert.equal(await arrived.promise, `100000 ${createHash('sha256').update('z'.repeat(100_000)).digest('hex')}`);
});

test('the command line: --allow, --network and --trace; the flow is in the evidence', async (t) => {
  const { port } = await httpServer(t);
  const dns = await dnsServer(t, { 'api.test': ['127.0.0.1'] });
  await inFolder(async (folder) => {
    const handler = join(folder, 'h.mjs');
    const policy = join(folder, 'network.json');
    await writeFile(handler, `export default async () => await (await fetch('http://api.test:${port}/x')).text();`);
    await writeFile(policy, JSON.stringify({ rules: [{ allow: `api.test:${port}`, ...LOOPBACK }] }));
    const cli = ['src/main.ts', 'run', '--handler', handler, '--accel', 'tcg'];
    const env = { ...process.env, MAYFLY_HOME: home, MAYFLY_RESOLVERS: dns.server };
    const cwd = join(import.meta.dirname, '../..');
    const mayfly = (...options: string[]): Promise<{ stdout: string; stderr: string }> =>
      promisify(execFile)(process.execPath, [...cli, ...options], { env, cwd });
    const { stdout, stderr } = await mayfly('--network', policy, '--trace');
    assert.equal(stdout, '"hello from /x"\n');
    const flow = `allowed +api\\.test:${port} \\(127\\.0\\.0\\.1\\) http, .* rule 1: allow api\\.test`;
    assert.match(stderr, new RegExp(flow));
    const failed: unknown = await mayfly('--allow', `api.test:${port}`, '--json').catch((thrown: unknown) => thrown);
    const answer: unknown = JSON.parse((failed as { stdout: string }).stdout);
    const { error, network } = answer as { error: { message: string }; network: EgressReport };
    assert.match(error.message, /fetch failed/);
    assert.match(network.flows[0]?.because ?? '', /127\.0\.0\.1 is loopback/);
  });
});
