/** Clones that waited, in real machines: unique, proved, each for one event, and gone when the pool is closed. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { handler, openWorld } from '../perf/world.ts';
import { home } from './rig.ts';

const world = await openWorld();
after(() => world.pool.close());

for (const [image, path] of [['node', 'unique.mjs'], ['python', 'unique.py']] as const) {
  test(`${image}: events that meet waiting clones are answered by different machines`, async () => {
    const workload = await handler(`test/perf/functions/${path}`);
    const first = await world.run(image, workload, Buffer.from('{}'));
    assert.ok(first.profile);
    world.pool.keep({ profile: first.profile, workload }, 2);
    await world.pool.full();
    const outcomes = [first];
    for (let i = 0; i < 2; i++) outcomes.push(await world.run(image, workload, Buffer.from(`{"i":${i}}`)));
    for (const outcome of outcomes) assert.equal(outcome.verdict.kind, 'accepted');
    for (const { timeline, proof, state } of outcomes.slice(1)) {
      assert.ok(!timeline.some(({ stage }) => stage === 'uniqueness'), 'it was made before its event');
      assert.deepEqual(proof, outcomes[0]?.proof, 'the proof of a waiting clone is in the evidence as well');
      assert.equal(state, 'sealed');
    }
    const answers = outcomes.map(({ output }) => JSON.parse(String(output)) as { unique: Record<string, string> });
    for (const name of Object.keys(answers[0]?.unique ?? {})) {
      assert.equal(new Set(answers.map(({ unique }) => unique[name])).size, answers.length, `${name} is not distinct`);
    }
    world.pool.keep({ profile: first.profile, workload }, 0);
  });
}

test('a function that cannot be loaded says so to the event that meets its clone', async () => {
  const workload = await handler('test/perf/functions/unique.mjs');
  const broken = { ...workload, kind: 'runtime' as const, handler: '/function/absent.mjs' };
  const first = await world.run('node', broken, Buffer.from('{}'));
  assert.ok(first.profile);
  world.pool.keep({ profile: first.profile, workload: broken }, 1);
  await world.pool.full();
  const met = await world.run('node', broken, Buffer.from('{}'));
  world.pool.keep({ profile: first.profile, workload: broken }, 0);
  for (const { verdict } of [first, met]) {
    assert.equal(verdict.kind === 'accepted' ? 'accepted' : verdict.code, 'E_FUNCTION_LOAD');
  }
});

test('a server that waits listens before its event is there, and answers it', async () => {
  const workload = { ...(await handler('examples/site/server.mjs')), server: { port: 8080, raw: true } };
  const ask = (n: number): ReturnType<typeof world.run> =>
    world.run('web', workload, Buffer.from(`{"path":"/api/sum?n=1&n=${n}"}`));
  const first = await ask(1);
  assert.ok(first.profile);
  world.pool.keep({ profile: first.profile, workload }, 1);
  await world.pool.full();
  const met = await ask(2);
  world.pool.keep({ profile: first.profile, workload }, 0);
  assert.deepEqual([first, met].map(({ verdict, output }) => [verdict.kind, String(output)]), [
    ['accepted', '{"sum":2}'], ['accepted', '{"sum":3}'],
  ]);
  assert.ok(!met.timeline.some(({ stage }) => stage === 'uniqueness'), 'it was made before its event');
});

test('closed, the pool leaves nothing', async () => {
  await world.pool.close();
  // Of this process: others may run events in the same home.
  const ours = readdirSync(join(home, 'run')).filter((name) => {
    return readFileSync(join(home, 'run', name, 'journal'), 'utf8').includes(`"pid":${process.pid},`);
  });
  assert.deepEqual(ours, []);
});
