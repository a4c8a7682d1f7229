/** Goal: whatever fails around a run, an event is at an end or on the medium as one that is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MayflyError } from '../../../src/core/errors.ts';
import type { EventEnd } from '../../../src/serve/store/event.ts';
import { inFolder } from '../../vm/rig.ts';
import { caller } from './http.ts';
import { openServe } from './rig.ts';

const JSON_TYPE = { 'content-type': 'application/json' };
const SEND = '/v1/functions/hello/events';

test('a result that the disk does not take is offered again, and given to nobody before', async () => {
  await inFolder(async (home) => {
    const rig = await openServe(home);
    try {
      await rig.deploy('hello');
      const [key, call] = [await rig.key('acme', 'invoke'), await caller(rig)];
      const end = rig.store.end.bind(rig.store);
      let refusals = 1;
      rig.store.end = async (...args: [string, string, EventEnd, number]) => {
        if (refusals-- > 0) throw new MayflyError('E_STORE_FULL', 'full');
        return await end(...args);
      };
      const from = performance.now();
      assert.equal((await call('POST', SEND, { key, headers: JSON_TYPE, body: '1' })).text, '1');
      assert.ok(performance.now() - from > 900);
      assert.equal(rig.runner.runs.length, 1, 'the run is not repeated for it');
    } finally {
      await rig.close();
    }
  });
});

test('a start that the disk does not take begins nothing; a store that takes no event acknowledges none', async () => {
  await inFolder(async (home) => {
    const rig = await openServe(home);
    try {
      await rig.deploy('hello');
      const [key, call] = [await rig.key('acme', 'invoke'), await caller(rig)];
      const { start, accept } = rig.store;
      let refusals = 1;
      rig.store.start = async (...args) => {
        if (refusals-- > 0) throw new MayflyError('E_STORE_FAILED', 'broken');
        return await start.apply(rig.store, args);
      };
      assert.equal((await call('POST', SEND, { key, headers: JSON_TYPE, body: '1' })).status, 200);
      assert.equal(rig.runner.runs.length, 1);
      rig.store.accept = async () => {
        throw new MayflyError('E_STORE_FULL', 'full');
      };
      const { status, json } = await call('POST', SEND, { key, headers: JSON_TYPE, body: '2' });
      assert.deepEqual([status, json.code], [503, 'E_STORE_FULL']);
      rig.store.accept = accept;
      assert.deepEqual([rig.store.counts().succeeded, rig.runner.runs.length], [1, 1]);
    } finally {
      await rig.close();
    }
  });
});

test('G4: a file system that is nearly full takes no new event', async () => {
  await inFolder(async (home) => {
    let free = 0;
    const rig = await openServe(home, { freeBytes: async () => free });
    try {
      await rig.deploy('hello');
      const [key, call] = [await rig.key('acme', 'invoke'), await caller(rig)];
      assert.equal((await call('POST', SEND, { key, headers: JSON_TYPE, body: '1' })).json.code, 'E_STORE_FULL');
      assert.equal((await call('GET', '/readyz')).json.status, 'full');
      free = 1024 ** 4;
      for (let i = 0; rig.service.state !== 'ok' && i < 100; i++)
        await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal((await call('POST', SEND, { key, headers: JSON_TYPE, body: '1' })).status, 200);
    } finally {
      await rig.close();
    }
  });
});

test('a function that is deleted while its events wait: dead letters that say so', async () => {
  await inFolder(async (home) => {
    const rig = await openServe(home, { settings: { concurrency: 1 } });
    try {
      await rig.deploy('hello');
      const [key, call] = [await rig.key('acme', 'invoke', 'admin'), await caller(rig)];
      const headers = { ...JSON_TYPE, prefer: 'respond-async' };
      await call('POST', SEND, { key, headers, body: '{"millis":300}' });
      const link = (await call('POST', SEND, { key, headers, body: '2' })).json.links[0];
      await rig.functions.remove('acme', 'hello');
      const version = await call('GET', `${link}?wait=10`, { key });
      // The version may still be in memory: then the event was run as it was accepted.
      if (version.json.state === 'failed') assert.equal(version.json.failure.code, 'E_FUNCTION_UNKNOWN');
      else assert.equal(version.json.output, 2);
      assert.equal((await call('POST', SEND, { key, headers, body: '3' })).status, 404);
    } finally {
      await rig.close();
    }
  });
});

test('another process that retries a dead letter is noticed', async () => {
  await inFolder(async (home) => {
    const rig = await openServe(home);
    try {
      await rig.deploy('hello');
      const [key, call] = [await rig.key('acme', 'invoke'), await caller(rig)];
      const { event } = (await call('POST', SEND, { key, headers: JSON_TYPE, body: '{"do":"throw"}' })).json;
      const { Store } = await import('../../../src/serve/store/store.ts');
      const other = await Store.open({ path: `${home}/serve/events.db`, bytesMax: 64 * 1024 ** 2 });
      assert.equal(await other.retry([event], 0), 1);
      await other.close();
      for (let i = 0; rig.runner.runs.length < 2 && i < 100; i++)
        await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal(rig.runner.runs.length, 2);
    } finally {
      await rig.close();
    }
  });
});
