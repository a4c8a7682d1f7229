/**
 * Goal (G1, G2): kill -9 of the service at any moment loses nothing that it has acknowledged: every event comes to an
 * end, each key has one event, and that has one result, which never changes. Method: the real store, queue, HTTP and
 * recovery in a process that is killed again and again, also while it recovers; machines are played.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { MayflyClient } from '../../src/client/client.ts';
import { inFolder } from '../vm/rig.ts';
import { openServe } from '../unit/serve/rig.ts';
import { Seeded } from './world.ts';

const ROUNDS = Number(process.env['ROUNDS'] ?? 3);
const seed = Number(process.env['SEED'] ?? 1);

interface Child {
  readonly port: number;
  readonly process: ChildProcess;
}

async function start(home: string): Promise<Child> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'serve-child.ts'), home], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const port = /^port (\d+)$/.exec(line)?.[1];
    if (port !== undefined) return { port: Number(port), process: child };
  }
  throw new Error('the service did not start');
}

function pause(millis: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, millis));
}

async function kill({ process: child }: Child): Promise<void> {
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await gone;
}

test(`G1: ${ROUNDS} rounds of kill -9 (seed ${seed}): what was acknowledged comes to one end`, async () => {
  const random = new Seeded(seed);
  await inFolder(async (home) => {
    const first = await openServe(home);
    await first.deploy('hello', 'retry: {attempts: 10, backoff: 20ms}\n');
    const key = await first.key('acme', 'invoke', 'admin');
    await first.close();
    /** Event by idempotency key, as acknowledged. */
    const acknowledged = new Map<string, string>();
    /** Results that somebody has seen. */
    const seen = new Map<string, string>();
    let wanted = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const child = await start(home);
      const client = new MayflyClient({ url: `http://127.0.0.1:${child.port}`, key });
      let alive = true;
      const sending = Array.from({ length: 4 }, async () => {
        while (alive) {
          const name = `key-${random.below(4) === 0 ? random.below(wanted + 1) : wanted++}`;
          const millis = Number(name.slice(4)) % 7 === 0 ? 40 : 0;
          try {
            const id = await client.send('hello', { name, millis }, { idempotencyKey: name });
            assert.equal(acknowledged.get(name) ?? id, id, 'one key, one event');
            acknowledged.set(name, id);
            if (random.below(3) > 0) continue;
            const { state, output } = await client.event(id);
            if (state === 'succeeded') seen.set(id, JSON.stringify(output));
          } catch (thrown) {
            if (alive && !(thrown instanceof TypeError)) throw thrown;
          }
        }
      });
      // At some moment after some events, however slow the machine is.
      const enough = acknowledged.size + 1 + random.below(25);
      for (let i = 0; acknowledged.size < enough && i < 1_000; i++) await pause(10);
      await pause(random.below(60));
      const dying = kill(child);
      alive = false;
      await Promise.all([dying, ...sending]);
    }
    const last = await openServe(home);
    try {
      const client = new MayflyClient({ url: last.url, key });
      assert.ok(acknowledged.size > ROUNDS, `${acknowledged.size} events`);
      for (const [name, id] of acknowledged) {
        const { state, output } = await client.settled(id);
        assert.equal(state, 'succeeded');
        assert.equal((output as { name: string }).name, name);
        if (seen.has(id)) assert.equal(JSON.stringify(output), seen.get(id), 'a published result does not change');
        const again = await client.send('hello', { name, millis: Number(name.slice(4)) % 7 === 0 ? 40 : 0 }, {
          idempotencyKey: name,
        });
        assert.equal(again, id);
      }
      for (let i = 0; last.store.counts().running + last.store.counts().queued > 0 && i < 200; i++) {
        await pause(50);
      }
      const { queued, running, succeeded, failed } = last.store.counts();
      assert.deepEqual([queued, running, failed], [0, 0, 0]);
      assert.ok(succeeded >= acknowledged.size && succeeded <= wanted, `${succeeded} of ${wanted}`);
    } finally {
      await last.close();
    }
  });
});
