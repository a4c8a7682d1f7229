/**
 * Goal: a server in a clone answers HTTP events, whatever it is written in and however it behaves; a hostile one ends
 * in a coded error that does not blame the host. Method: the examples through the command line, and servers that break
 * the rules of HTTP one at a time, in clones of one template.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { exchange } from '../../src/bridge/web.ts';
import { Session } from '../../src/bridge/session.ts';
import type { HttpRequest } from '../../src/event/http.ts';
import type { ServerAnswer } from '../../src/validate/execution.ts';
import type { Template } from '../../src/clone/template.ts';
import { file, granted, inClone, kernelPolicy, newIdentity } from './guest.ts';
import { clock, home, inFolder, mebibyte, openRig, workloadId } from './rig.ts';
import type { Rig } from './rig.ts';

const root = join(import.meta.dirname, '../..');
const example = (...path: string[]): string => join(root, 'examples', ...path);

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function mayfly(...args: string[]): Promise<Ended> {
  return await new Promise((resolve) => {
    const options = { env: { ...process.env, MAYFLY_HOME: home }, timeout: 200_000 };
    execFile(join(root, 'bin/mayfly'), ['run', ...args], options, (error, out, err) => {
      resolve({ code: Number(error?.code ?? 0), out, err });
    });
  });
}

const site = ['--handler', example('site', 'server.mjs'), '--code', example('site'), '--port', '8080'];

test('web: a site answers, and its log is the log of the run', async () => {
  const { code, out, err } = await mayfly(...site, '--event', example('site', 'event.json'));
  assert.equal(code, 0, err);
  const answer = JSON.parse(out) as { status: number; headers: Record<string, string>; body: string };
  assert.deepEqual([answer.status, answer.headers['content-type']], [200, 'text/html; charset=utf-8']);
  assert.match(answer.body, /<h1>One visit, one machine\.<\/h1>/);
  assert.match(err, /^GET \/$/m);
});

test('web: query, body, status and raw output', async () => {
  const echo = { method: 'POST', path: '/api/echo', headers: { 'Content-Type': 'application/json' }, body: { a: [1] } };
  const { out, err } = await mayfly(...site, '--data', JSON.stringify(echo));
  const answer = JSON.parse(out || JSON.stringify(err)) as Record<string, unknown>;
  assert.deepEqual([answer['status'], answer['body']], [201, '{"a":[1]}'], err);
  const sum = await mayfly(...site, '--raw', '--data', '{"path": "/api/sum?n=40&n=2"}');
  assert.equal(sum.out, '{"sum":42}', sum.err);
});

test('web: BusyBox httpd serves a file; a Python server and a program of the image do the same', async () => {
  const folder = example('static-site');
  const order = ['--image', 'web', '--exec', join(folder, 'serve.sh'), '--code', folder, '--port', '8000', '--raw'];
  const { out, err } = await mayfly(...order, '--data', '{"path": "/hello.txt"}');
  assert.equal(out, 'hello from a file\n', err);
  await inFolder(async (place) => {
    const server = join(place, 'server.py');
    await writeFile(server, [
      'import os', 'from http.server import BaseHTTPRequestHandler, HTTPServer',
      'class H(BaseHTTPRequestHandler):',
      '    def do_POST(self):',
      '        body = self.rfile.read(int(self.headers["content-length"]))',
      '        self.send_response(200); self.end_headers(); self.wfile.write(body[:16])',
      'if __name__ == "__main__": HTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()', '',
    ].join('\n'));
    const posted = await mayfly('--handler', server, '--port', '8080', '--raw', '--data', '{"n": 1}');
    assert.equal(posted.out, '{"specversion":"', posted.err);
  });
});

test('web: what is no request, and what is no server', async () => {
  const bad = await mayfly(...site, '--data', '{"path": "/ HTTP/1.1"}');
  assert.deepEqual([bad.code, /E_EVENT_INVALID/.test(bad.err)], [2, true], bad.err);
  await inFolder(async (place) => {
    for (const [text, code] of [
      ['export default () => 1;', /E_FUNCTION_LOAD.*\n.*listens nowhere/],
      ['throw new TypeError("broken");', /E_FUNCTION_LOAD.*\n.*TypeError: broken/],
      ['setTimeout(() => process.exit(3), 50);', /E_FUNCTION_EXIT.*\n.*status 3/],
      // Half of its time, and it does not listen.
      ['setInterval(() => {}, 1000); // --timeout 8s', /E_SERVER_NOT_LISTENING.*\n.*within 4000 ms/],
    ] as const) {
      const handler = join(place, 'h.mjs');
      await writeFile(handler, text);
      const more = text.includes('--timeout') ? ['--timeout', '8s'] : [];
      const { code: exit, err } = await mayfly('--handler', handler, '--port', '8080', ...more);
      assert.deepEqual([exit, code.test(err)], [1, true], err);
    }
  });
});

// ---- hostile servers ------------------------------------------------------------------------------------------------

let rig: Rig;
let web: Template;

before(async () => {
  rig = await openRig();
  web = await rig.template('web');
});

const GET: HttpRequest = { method: 'GET', path: '/', headers: new Map(), body: Buffer.alloc(0) };

interface Exchanged {
  readonly answer: ServerAnswer;
  readonly end: string;
  readonly log: string;
}

/** A raw TCP server in JavaScript: `socket` is the connection. */
async function against(behaviour: string, request = GET, wallMillis = 20_000): Promise<Exchanged> {
  return await inClone(rig, web, async (machine) => {
    const session = new Session({ transport: machine.bridge, clock });
    await session.adopt(newIdentity());
    const source = `import { createServer } from 'node:net';
      createServer((socket) => {
        socket.on('error', () => {});
        socket.once('data', (first) => { ${behaviour} });
      }).listen(process.env.PORT, () => console.log('listening'));`;
    const kernel = { uid: workloadId, gid: workloadId, ...(await kernelPolicy(web)) };
    const configuration = { limits: granted, argv: [], env: [], ...kernel };
    await session.configure(configuration, [file('h.mjs', source)]);
    let log = '';
    const stdin = Buffer.from('{"handler":"/function/h.mjs","env":{"PORT":"8080"},"serve":true}\n');
    const running = session.execute({ stdin, wallMillis, onStdout: (chunk) => { log += chunk.toString(); } });
    running.catch(() => {});
    const answer = await exchange({ door: session.dial(8080), port: 8080, request, clock, bytesMax: mebibyte });
    session.stop();
    const shown = running.then(({ exit }) => `exit ${exit.exitCode} ${exit.signal}`);
    const end = await shown.catch((error: Error) => error.message);
    session.close();
    return { answer, end, log };
  });
}

const answers = (text: string): string => `socket.end(${JSON.stringify(text)});`;

for (const [name, behaviour, expected] of [
  ['no HTTP at all', answers('220 smtp ready\r\n'), /E_SERVER_RESPONSE .*Parse Error/],
  ['a header with a control character', answers('HTTP/1.1 200 OK\r\nx: a\u0001b\r\n\r\n'), /E_SERVER_RESPONSE .*Parse/],
  ['two lengths', answers('HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab'), /E_SERVER_RESPONSE/],
  ['length and chunks', answers(
    'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
  ), /E_SERVER_RESPONSE/],
  ['an endless head', 'setInterval(() => socket.write("x-pad: aaaaaaaaaaaaaaaaaaaaaaaaa\\r\\n".repeat(200)), 1);'
    + 'socket.write("HTTP/1.1 200 OK\\r\\n");', /E_SERVER_RESPONSE .*16384 bytes/],
  ['an endless body', 'const pour = () => { while (socket.write(Buffer.alloc(65536))); };'
    + 'socket.on("drain", pour); socket.write("HTTP/1.1 200 OK\\r\\n\\r\\n"); pour();', /E_OUTPUT_TOO_LARGE/],
  ['an end half way', answers('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf'), /E_SERVER_RESPONSE/],
  ['a reset half way', 'socket.write("HTTP/1.1 200 OK\\r\\ncontent-length: 9\\r\\n\\r\\nab", () => '
    + 'setTimeout(() => socket.resetAndDestroy(), 100));', /E_SERVER_RESPONSE/],
  ['another protocol', answers('HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'), /E_SERVER_RESP/],
  ['nothing but "continue"', answers('HTTP/1.1 100 Continue\r\n\r\n'.repeat(40)), /E_SERVER_RESPONSE .*goes on/],
] as const) {
  test(`a hostile server: ${name}`, async () => {
    const { answer, end } = await against(behaviour);
    assert.equal(answer.ok, false, JSON.stringify(answer));
    assert.match(`${answer.code} ${answer.message}`, expected);
    assert.equal(end, 'exit 0 0');
  });
}

test('a hostile server: never answers; the wall time ends it, and the log until then is there', async () => {
  const { answer, end, log } = await against('', GET, 3000);
  assert.deepEqual([answer.ok, end, log], [false, 'the function did not finish within 3000 ms', 'listening\n']);
});

test('megabytes go in and come back through the windows, byte for byte', async () => {
  const body = Buffer.alloc(900_000, 'abcdefghijklmnopqrstuvwxyz');
  const echo = `let got = 0;
    const take = (chunk) => {
      got += chunk.length;
      socket.write(chunk);
      if (got >= ${body.length}) socket.end();
    };
    socket.write('HTTP/1.1 200 OK\\r\\n\\r\\n');
    take(first.subarray(first.indexOf('\\r\\n\\r\\n') + 4));
    socket.on('data', take);`;
  const { answer } = await against(echo, { ...GET, method: 'POST', body });
  assert.ok(answer.ok, JSON.stringify(answer));
  assert.equal(answer.body.equals(body), true, `${answer.body.length} bytes`);
});
