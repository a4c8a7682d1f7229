/** E5: no key, a wrong one, one that lacks the role, another tenant's ids and names: 401, 403, 404, no more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { caller } from '../unit/serve/http.ts';
import { openServe } from '../unit/serve/rig.ts';
import { inFolder } from '../vm/rig.ts';

test('E5: nobody gets further than their key', async () => {
  await inFolder(async (home) => {
    const rig = await openServe(home);
    try {
      await rig.deploy('hello');
      await rig.deploy('theirs', '', 'stranger');
      const call = await caller(rig);
      const [key, other] = [await rig.key('acme', 'invoke'), await rig.key('acme', 'invoke')];
      const [stranger, reader] = [await rig.key('stranger', 'admin'), await rig.key('acme', 'investigate')];
      const path = '/v1/functions/hello/events';
      const headers = { 'content-type': 'application/json' };
      const { headers: answered } = await call('POST', path, { key, headers, body: '1' });
      const event = `/v1/events/${answered.get('mayfly-event')}`;
      const dead = (await call('POST', path, { key, headers, body: '{"do":"throw"}' })).json.event;

      for (const [method, where] of [
        ['POST', path],
        ['GET', event],
        ['GET', `${event}/stream`],
        ['GET', '/v1/functions'],
        ['GET', '/v1/dead-letters'],
        ['POST', `/v1/dead-letters/${dead}/retry`],
        ['DELETE', `/v1/dead-letters/${dead}`],
      ] as const) {
        const { status, headers: got } = await call(method, where);
        assert.deepEqual([status, got.get('www-authenticate')], [401, 'Bearer realm="mayfly"'], where);
      }
      // Wrong in its last character only: the body is not even read.
      const flipped = `${key.slice(0, -2)}${key.at(-2) === 'A' ? 'B' : 'A'}${key.slice(-1)}`;
      assert.ok([401, 429].includes((await call('POST', path, { key: flipped, headers, body: '1' })).status));

      assert.equal((await call('GET', event, { key: stranger })).status, 404, 'another tenant\'s event is unknown');
      assert.equal((await call('GET', `${event}/stream`, { key: stranger })).status, 404);
      assert.equal((await call('POST', path, { key: stranger, headers, body: '1' })).status, 404);
      assert.equal((await call('POST', `/v1/dead-letters/${dead}/retry`, { key: stranger })).status, 404);
      assert.equal((await call('DELETE', `/v1/dead-letters/${dead}`, { key: stranger })).status, 404);
      assert.deepEqual((await call('GET', '/v1/dead-letters', { key: stranger })).json.events, []);
      assert.deepEqual((await call('GET', '/v1/functions', { key: stranger })).json.functions.length, 1);

      assert.equal((await call('GET', event, { key: other })).status, 404, 'invoke sees its own events only');
      assert.equal((await call('GET', event, { key: reader })).status, 200);
      assert.equal((await call('POST', path, { key: reader, headers, body: '1' })).status, 403);
      assert.equal((await call('GET', '/v1/dead-letters', { key })).status, 403);
      assert.equal((await call('DELETE', `/v1/dead-letters/${dead}`, { key: reader })).status, 403);

      for (const name of ['..', '%2e%2e', 'a%2Fb', 'versions', 'A', 'x'.repeat(64)]) {
        const { status } = await call('POST', `/v1/functions/${name}/events`, { key, headers, body: '1' });
        assert.ok(status === 400 || status === 404, `${name}: ${status}`);
      }
      for (const id of ['..', '1', '%00', 'x'.repeat(300)]) {
        const { status } = await call('GET', `/v1/events/${id}`, { key });
        assert.ok(status === 400 || status === 404, `${id}: ${status}`);
      }
      const guesses = await Promise.all(Array.from({ length: 40 }, () => call('GET', event, { key: flipped })));
      assert.ok(guesses.some(({ status }) => status === 429), 'who guesses is slowed down');
      assert.equal((await call('GET', event, { key })).status, 200, 'and who has a key is not');
    } finally {
      await rig.close();
    }
  });
});
