/** E4: callers that vanish in the middle: their events run on, and nothing of them stays in the service. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { caller } from '../unit/serve/http.ts';
import { openServe } from '../unit/serve/rig.ts';
import { inFolder } from '../vm/rig.ts';

test('E4: what was accepted is run, half a request is not, and no waiter is left', async () => {
  await inFolder(async (home) => {
    const rig = await openServe(home, { settings: { concurrency: 64 } });
    try {
      await rig.deploy('hello');
      const [key, call] = [await rig.key('acme', 'invoke', 'investigate'), await caller(rig)];
      const path = '/v1/functions/hello/events';
      const headers = { 'content-type': 'application/json' };
      await Promise.all(
        Array.from({ length: 30 }, async () => {
          const signal = AbortSignal.timeout(1_500);
          await assert.rejects(call('POST', path, { key, headers, body: '{"millis":2500}', signal }));
        }),
      );
      const sent = await call('POST', path, {
        key,
        headers: { ...headers, prefer: 'respond-async' },
        body: '{"millis":1500}',
      });
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          const signal = AbortSignal.timeout(100);
          await assert.rejects(call('GET', `${sent.json.links[0]}/stream`, { key, signal }));
        }),
      );
      const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Length: 100\r\n\r\n{`;
      await new Promise<void>((resolve) => {
        const socket = connect(rig.port, '127.0.0.1', () => socket.write(head, () => socket.destroy()));
        socket.on('close', () => resolve());
      });
      assert.equal((await call('GET', `${sent.json.links[0]}?wait=10`, { key })).json.state, 'succeeded');
      await new Promise((resolve) => setTimeout(resolve, 2_500));
      const { runs } = rig.runner;
      assert.ok(runs.length > 5, `${runs.length} events were accepted before their callers went away`);
      assert.deepEqual(rig.store.counts(), { queued: 0, running: 0, succeeded: runs.length, failed: 0 });
      assert.equal(rig.runner.now, 0);
      const open = await new Promise<number>((resolve) =>
        rig.server.server.getConnections((_error, count) => resolve(count)),
      );
      assert.ok(open <= 40, `${open} connections`);
    } finally {
      await rig.close();
    }
  });
});
