/** E2: a body over the cap, a compressed bomb, endless headers: refused early, without being read or inflated. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { limits } from '../../src/core/limits.ts';
import { caller } from '../unit/serve/http.ts';
import { openServe } from '../unit/serve/rig.ts';
import { inFolder } from '../vm/rig.ts';

/** Sends and keeps sending until the server has enough: the status, and how many bytes went out. */
function flood(port: number, head: string, chunk: Buffer, bytesMax: number): Promise<{ said: string; sent: number }> {
  return new Promise((resolve) => {
    let [said, sent] = ['', 0];
    const socket = connect(port, '127.0.0.1', () => {
      socket.write(head);
      const more = (): void => {
        while (sent < bytesMax && !socket.destroyed && said === '') {
          sent += chunk.length;
          if (!socket.write(chunk)) return void socket.once('drain', more);
        }
      };
      more();
    });
    socket.setTimeout(15_000, () => socket.destroy());
    socket.on('data', (data) => {
      said += String(data);
      socket.end();
    }).on('error', () => {});
    socket.on('close', () => resolve({ said, sent }));
  });
}

test('E2: what is too large or compressed is refused before it is held', async () => {
  await inFolder(async (home) => {
    const rig = await openServe(home);
    try {
      await rig.deploy('hello');
      const [key, call] = [await rig.key('acme', 'invoke'), await caller(rig)];
      const path = '/v1/functions/hello/events';
      const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\n`
        + 'Content-Type: application/json\r\n';
      const chunk = Buffer.alloc(65_536, 0x20);

      const declared = await flood(rig.port, `${head}Content-Length: 10000000000\r\n\r\n`, chunk, 64 * chunk.length);
      assert.match(declared.said, /^HTTP\/1\.1 413 [\s\S]*E_EVENT_TOO_LARGE/);
      const frame = Buffer.concat([Buffer.from('10000\r\n'), chunk, Buffer.from('\r\n')]);
      const before = process.memoryUsage().rss;
      const chunked = await flood(
        rig.port,
        `${head}Transfer-Encoding: chunked\r\n\r\n`,
        frame,
        50 * limits.eventBytesMax,
      );
      assert.match(chunked.said, /^(HTTP\/1\.1 413 |$)/);
      assert.ok(chunked.sent < 10 * limits.eventBytesMax, `${chunked.sent} bytes were taken`);
      assert.ok(process.memoryUsage().rss - before < 20 * limits.eventBytesMax);

      const bomb = gzipSync(Buffer.alloc(50_000_000, 0x20));
      for (const encoding of ['gzip', 'deflate', 'br', 'zstd', 'x']) {
        const { status, json } = await call('POST', path, {
          key, headers: { 'content-type': 'application/json', 'content-encoding': encoding }, body: bomb,
        });
        assert.deepEqual([status, json.code], [415, 'E_ENCODING'], encoding);
      }
      const headers = `GET /healthz HTTP/1.1\r\nHost: x\r\n${`X-A: ${'a'.repeat(32)}\r\n`.repeat(2_000)}\r\n`;
      assert.match((await flood(rig.port, headers, chunk, 0)).said, /^HTTP\/1\.1 4\d\d /);
      const most = Buffer.from(JSON.stringify('x'.repeat(limits.eventBytesMax - 1_000)));
      const fits = await call('POST', path, { key, headers: { 'content-type': 'application/json' }, body: most });
      assert.equal(fits.status, 200, 'what is just small enough is taken');
      assert.equal(rig.runner.runs.length, 1);
    } finally {
      await rig.close();
    }
  });
});
