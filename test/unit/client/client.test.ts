/** Goal: the client says what the service answers, in its own words. Method: the real service but its machines. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MayflyClient, MayflyProblem } from 'mayfly/client';
import { inFolder } from '../../vm/rig.ts';
import { openServe } from '../serve/rig.ts';

test('invoke, send, wait, dead letters, problems', async () => {
  await inFolder(async (home) => {
    const rig = await openServe(home);
    try {
      await rig.deploy('hello');
      const client = new MayflyClient({ url: rig.url, key: await rig.key('acme', 'invoke', 'admin') });
      assert.deepEqual(await client.invoke('hello', { n: 1 }), { n: 1 });
      const id = await client.send('hello', { n: 2 }, { idempotencyKey: 'two' });
      assert.equal(await client.send('hello', { n: 2 }, { idempotencyKey: 'two' }), id);
      assert.deepEqual((await client.settled(id)).output, { n: 2 });
      const event = { specversion: '1.0', id: '1', source: '/s', type: 't', data: { n: 3 } };
      const [first = ''] = await client.sendCloudEvents('hello', [event]);
      assert.deepEqual((await client.settled(first)).output, { n: 3 });
      await assert.rejects(client.invoke('hello', { do: 'throw' }), (thrown: MayflyProblem) => {
        assert.ok(thrown instanceof MayflyProblem);
        return thrown.problem.code === 'E_FUNCTION_THREW' && thrown.problem.status === 502;
      });
      const { events } = await client.deadLetters({ limit: 5 });
      assert.equal(events.length, 1);
      await client.retryDeadLetter(String(events[0]?.id));
      assert.equal((await client.settled(String(events[0]?.id))).state, 'failed');
      await client.purgeDeadLetter(String(events[0]?.id));
      assert.deepEqual((await client.functions()).map(({ name }) => name), ['hello']);
      await rig.tenants.put('acme', { eventsPerSecond: 1 });
      const hundred = Array.from({ length: 100 }, () => event);
      await client.sendCloudEvents('hello', hundred);
      await assert.rejects(client.sendCloudEvents('hello', hundred), ({ problem, retryAfter }: MayflyProblem) => {
        return problem.code === 'E_RATE_LIMITED' && retryAfter === 1;
      });
    } finally {
      await rig.close();
    }
  });
});
