/** G1 and G2 in small: a few real kills in each run of the tests; `npm run soak -- --kill 100` does more (kills.ts). */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { killRounds } from '../perf/kills.ts';
import { home, openRig } from './rig.ts';

before(async () => {
  await (await openRig()).template('shell');
});

test('kill -9 at moments all over a run: nothing is left, every accepted event has one record', async (t) => {
  const seed = process.pid;
  const { failures, killed, abandoned } = await killRounds({ home, rounds: 6, seed, buildEvery: 0, say: () => {} });
  t.diagnostic(`seed ${seed}: ${killed} killed, ${abandoned} of them with an accepted event`);
  assert.deepEqual(failures, []);
  assert.ok(killed >= 3);
});
