/**
 * Goal: what was acknowledged is on the medium, each change happens once, and a full or damaged disk is said aloud.
 * Method: the real database, its writer's thread included.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { MayflyError } from '../../../src/core/errors.ts';
import type { EventEnd, NewEvent } from '../../../src/serve/store/event.ts';
import { Store } from '../../../src/serve/store/store.ts';
import { inFolder, mebibyte } from '../../vm/rig.ts';

let count = 0;

function event(changes: Partial<NewEvent> = {}): NewEvent {
  return {
    id: `01M8${String(count++).padStart(22, '0')}`, tenant: 'acme', function: 'hello', version: 'sha256:v', key: null,
    body: 'sha256:b', origin: { ip: '127.0.0.1', principal: 'k' }, acceptedMillis: 1000 + count,
    event: Buffer.from('{"n":1}'), ...changes,
  };
}

const done: EventEnd = {
  state: 'succeeded',
  output: Buffer.from('{"big":12345678901234567890}'),
  raw: false,
  evidence: 'sha256:e',
};
const failure = { code: 'E_FUNCTION_THREW', blame: 'caller', message: 'm', remedy: 'r' } as const;

async function inStore(work: (store: Store, path: string) => Promise<void>, bytesMax = 64 * mebibyte): Promise<void> {
  await inFolder(async (folder) => {
    const path = join(folder, 'serve', 'events.db');
    const store = await Store.open({ path, bytesMax });
    try {
      await work(store, path);
    } finally {
      await store.close();
    }
  });
}

test('an event goes its way once: whoever comes second changes nothing', async () => {
  await inStore(async (store) => {
    const one = event();
    assert.deepEqual(await store.accept([one]), [{ is: 'fresh', id: one.id }]);
    assert.equal(store.payload(one.id).toString(), '{"n":1}');
    assert.deepEqual([await store.start(one.id, 'r1'), await store.start(one.id, 'r2')], [true, false]);
    assert.equal(await store.end(one.id, 'r2', done, 5), false, 'another attempt cannot publish');
    assert.equal(await store.end(one.id, 'r1', { state: 'queued', dueMillis: 7, failure }, 5), true);
    assert.equal(store.find(one.id)?.failure?.code, 'E_FUNCTION_THREW');
    assert.equal(await store.end(one.id, 'r1', done, 5), false, 'nor can one that was given up');
    assert.equal(await store.start(one.id, 'r3'), true);
    assert.equal(await store.end(one.id, 'r3', done, 9), true);
    assert.equal(await store.end(one.id, 'r3', { state: 'failed', failure, evidence: null }, 9), false);
    const { state, attempts, run, failure: last, endedMillis } = store.find(one.id) ?? assert.fail();
    assert.deepEqual([state, attempts, run, last, endedMillis], ['succeeded', 2, 'r3', null, 9]);
    assert.equal(store.output(one.id).toString(), '{"big":12345678901234567890}');
    assert.equal(store.payload(one.id).length, 0, 'the payload goes with success');
  });
});

test('E3: a key stands for one body; a batch is accepted whole or not at all', async () => {
  await inStore(async (store) => {
    const first = event({ key: 'k' });
    await store.accept([first]);
    assert.deepEqual(await store.accept([event({ key: 'k' })]), [{ is: 'known', id: first.id }]);
    const mixed = [event(), event({ key: 'k', body: 'sha256:other' })];
    assert.deepEqual((await store.accept(mixed)).map(({ is }) => is), ['fresh', 'conflict']);
    assert.equal(store.find(String(mixed[0]?.id)), undefined);
    for (const changes of [{ tenant: 'other' }, { function: 'other' }]) {
      assert.equal((await store.accept([event({ key: 'k', body: 'x', ...changes })]))[0]?.is, 'fresh');
    }
    assert.equal(store.counts().queued, 3);
  });
});

test('what was acknowledged is there for whoever opens it next, another process included', async () => {
  await inStore(async (store, path) => {
    const ids = await Promise.all(Array.from({ length: 500 }, async (_, index) => {
      return (await store.accept([event({ acceptedMillis: index })]))[0];
    }));
    const other = await Store.open({ path, bytesMax: 64 * mebibyte });
    assert.equal(other.counts().queued, ids.length);
    const [first] = other.unfinished('queued', 1);
    assert.ok(first);
    const before = store.dataVersion();
    await other.start(first.id, 'r');
    await other.end(first.id, 'r', { state: 'failed', failure, evidence: null }, 5);
    assert.notEqual(store.dataVersion(), before, 'a service sees that somebody else has written');
    assert.deepEqual(store.list({ state: 'failed', most: 9 }).map(({ id }) => id), [first.id]);
    assert.equal(await other.retry([first.id, 'unknown'], 77), 1);
    const { state, attempts, version, dueMillis } = store.find(first.id) ?? assert.fail();
    assert.deepEqual([state, attempts, version, dueMillis], ['queued', 0, null, 77]);
    assert.equal(await other.purge([first.id]), 0, 'only dead letters are purged');
    await other.close();
  });
});

test('what has expired goes, and pages of dead letters meet without a gap', async () => {
  await inStore(async (store) => {
    const all = Array.from({ length: 7 }, () => event());
    await store.accept(all);
    for (const [index, { id }] of all.entries()) {
      await store.start(id, 'r');
      await store.end(id, 'r', index === 0 ? done : { state: 'failed', failure, evidence: null }, index);
    }
    const page = store.list({ state: 'failed', most: 4 });
    const rest = store.list({ state: 'failed', most: 4, before: String(page.at(-1)?.id) });
    assert.deepEqual([...page, ...rest].map(({ id }) => id), all.slice(1).map(({ id }) => id).reverse());
    assert.deepEqual(store.list({ state: 'failed', tenant: 'other', most: 4 }), []);
    assert.equal(await store.sweep(1, 3), 3);
    assert.deepEqual(store.counts(), { queued: 0, running: 0, succeeded: 0, failed: 4 });
    assert.equal(await store.purge(page.map(({ id }) => id)), 4);
  });
});

test('G4: a full store takes no event, but still the results of what it has taken', async () => {
  await inStore(async (store) => {
    const taken: string[] = [];
    const big = Buffer.alloc(mebibyte);
    let refused: unknown;
    for (let i = 0; i < 20 && refused === undefined; i++) {
      const one = event({ event: big });
      await store.accept([one]).then(() => taken.push(one.id), (thrown: unknown) => (refused = thrown));
    }
    assert.equal((refused as MayflyError).code, 'E_STORE_FULL');
    assert.ok(taken.length >= 5 && taken.length < 8, String(taken.length));
    for (const id of taken) {
      await store.start(id, 'r');
      assert.ok(await store.end(id, 'r', { ...done, output: Buffer.alloc(1000) }, 1));
    }
    await store.accept([event()]);
    assert.equal(store.counts().succeeded, taken.length);
  }, 8 * mebibyte);
});

test('G4: a disk that is full beyond the reserve fails one change, and keeps everything before it', async () => {
  await inStore(async (store) => {
    const ids = [event(), event()].map((each) => each);
    await store.accept(ids);
    for (const { id } of ids) await store.start(id, 'r');
    const [a = '', b = ''] = ids.map(({ id }) => id);
    await assert.rejects(store.end(a, 'r', { ...done, output: Buffer.alloc(9 * mebibyte) }, 1), {
      code: 'E_STORE_FULL',
    });
    assert.equal(store.find(a)?.state, 'running');
    assert.equal(await store.end(b, 'r', done, 1), true, 'the next change is taken');
  }, 8 * mebibyte);
});

test('G5: damage is reported, never opened', async () => {
  await inFolder(async (folder) => {
    const path = join(folder, 'events.db');
    const store = await Store.open({ path, bytesMax: 8 * mebibyte });
    await store.accept(Array.from({ length: 50 }, () => event({ event: Buffer.alloc(4000) })));
    await store.close();
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 4096, 12_288);
    writeFileSync(path, bytes);
    await assert.rejects(Store.open({ path, bytesMax: 8 * mebibyte }), { code: 'E_STORE_FAILED' });
    writeFileSync(path, 'this is no database, and long enough to be looked at as one');
    await assert.rejects(Store.open({ path, bytesMax: 8 * mebibyte }), { code: 'E_STORE_FAILED' });
  });
});

test('a store that is closed says so', async () => {
  await inFolder(async (folder) => {
    const store = await Store.open({ path: join(folder, 'events.db'), bytesMax: 8 * mebibyte });
    const accepted = store.accept([event()]);
    await store.close();
    assert.equal((await accepted)[0]?.is, 'fresh', 'what was asked before is answered');
    await assert.rejects(store.accept([event()]), { code: 'E_STORE_FAILED' });
  });
});
