/** E1: a client that sends a byte a second, in its headers or its body, is cut off at 10 s; neighbours are served. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { limits } from '../../src/core/limits.ts';
import { caller } from '../unit/serve/http.ts';
import { openServe } from '../unit/serve/rig.ts';
import { inFolder } from '../vm/rig.ts';

/** Milliseconds until the server closes, and what it said. */
function drip(port: number, opening: string, drop: string): Promise<{ millis: number; said: string }> {
  return new Promise((resolve) => {
    const from = performance.now();
    const socket = connect(port, '127.0.0.1', () => socket.write(opening));
    let said = '';
    const timer = setInterval(() => socket.write(drop), 500);
    socket.on('data', (chunk) => (said += String(chunk))).on('error', () => {});
    socket.on('close', () => {
      clearInterval(timer);
      resolve({ millis: performance.now() - from, said });
    });
  });
}

test('E1: slow headers, slow bodies and silent connections are cut off; neighbours are served', async () => {
  await inFolder(async (home) => {
    const rig = await openServe(home);
    try {
      await rig.deploy('hello');
      const [key, call] = [await rig.key('acme', 'invoke'), await caller(rig)];
      const path = '/v1/functions/hello/events';
      const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\n`;
      const slow = Promise.all([
        drip(rig.port, 'GET /healthz HTTP/1.1\r\nHost: x\r\n', 'X-A: b\r\n'),
        drip(rig.port, `${head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n`, ' '),
        drip(rig.port, 'G', ''),
      ]);
      const served = await call('POST', path, { key, headers: { 'content-type': 'application/json' }, body: '1' });
      assert.equal(served.status, 200);
      for (const { millis, said } of await slow) {
        assert.ok(millis < limits.requestMillisMax + 3_000, `${millis} ms`);
        assert.match(said, /^(HTTP\/1\.1 408 [\s\S]*E_REQUEST_TIMEOUT|$)/);
      }
      assert.equal(rig.runner.runs.length, 1);
    } finally {
      await rig.close();
    }
  });
});
