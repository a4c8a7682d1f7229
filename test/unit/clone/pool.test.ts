/** The pool hands out each waiting clone once, only for what it was proved for, and leaves none behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clone } from '../../../src/clone/clone.ts';
import { Pool } from '../../../src/clone/pool.ts';
import type { PoolOrder, WaitingClone } from '../../../src/clone/pool.ts';
import { limits } from '../../../src/core/limits.ts';
import type { Clock } from '../../../src/core/time.ts';
import type { Workload } from '../../../src/event/workload.ts';
import type { SealedProfile } from '../../../src/profile/profile.ts';

const workload: Workload = { kind: 'runtime', handler: '/function/h.mjs', entries: [] };
const other: Workload = { ...workload };

function order(digest: string, what: Workload = workload): PoolOrder {
  return { profile: { digest } as SealedProfile, workload: what };
}

interface Made extends WaitingClone {
  state: string;
  dropped: number;
  given: number;
}

function rig(fail: (attempt: number) => boolean = () => false) {
  const made: Made[] = [];
  let attempts = 0;
  let elapsed = 0;
  const clock: Clock = {
    now: () => elapsed,
    wallNanos: () => 0n,
    after(_millis, work) {
      const timer = setTimeout(work, 1);
      return () => clearTimeout(timer);
    },
  };
  const prime = async (): Promise<WaitingClone> => {
    if (fail(++attempts)) throw new Error(`attempt ${attempts} fails`);
    const waiting: Made = {
      state: 'started', dropped: 0, given: 0,
      clone: { session: { get status() { return { state: waiting.state }; } } } as unknown as Clone,
      handOver: async () => { waiting.given++; },
      drop: async () => { waiting.dropped++; },
    };
    made.push(waiting);
    return waiting;
  };
  const pass = (millis: number): void => {
    elapsed += millis;
  };
  return { pool: new Pool({ clock, prime }), made, attempts: () => attempts, pass };
}

test('a waiting clone is taken once, and another one is made in its place', async () => {
  const { pool, made } = rig();
  pool.keep(order('a'), 1);
  await pool.full();
  const taken = pool.take('a', workload);
  assert.equal(taken, made[0]);
  assert.equal(pool.take('a', workload), undefined, 'nobody gets it a second time');
  await pool.full();
  assert.equal(pool.take('a', workload), made[1]);
  await pool.close();
  assert.deepEqual(made.slice(0, 2).map(({ dropped }) => dropped), [0, 0], 'what was taken is not the pool\'s to end');
  assert.ok(made.slice(2).every(({ dropped }) => dropped === 1));
});

test('another profile or another function gets nothing', async () => {
  const { pool } = rig();
  pool.keep(order('a'), 1);
  await pool.full();
  assert.equal(pool.take('b', workload), undefined);
  assert.equal(pool.take('a', other), undefined, 'the same text is not the same function');
  await pool.close();
});

test('a clone that died or waited too long is dropped and not given', async () => {
  const { pool, made, pass } = rig();
  pool.keep(order('a'), 3);
  await pool.full();
  assert.equal(made.length, 3);
  (made[0] as Made).state = 'failed';
  assert.equal(pool.take('a', workload), made[1]);
  pass(limits.poolWaitMillisMax);
  assert.equal(pool.take('a', workload), undefined);
  await pool.close();
  assert.deepEqual(made.slice(0, 3).map(({ dropped }) => dropped), [1, 0, 1]);
});

test('a function that has ended while it was loaded still answers its event', async () => {
  const { pool, made } = rig();
  pool.keep(order('a'), 1);
  await pool.full();
  (made[0] as Made).state = 'finished';
  assert.equal(pool.take('a', workload), made[0]);
  await pool.close();
});

test('what cannot be made is given up after some failures, and said', async () => {
  const { pool, attempts } = rig(() => true);
  pool.keep(order('a'), 1);
  await assert.rejects(pool.full(), /attempt \d fails/);
  assert.equal(attempts(), limits.poolFailuresMax);
  await assert.rejects(pool.full(), /fails/);
  assert.equal(attempts(), limits.poolFailuresMax, 'not tried again by itself');
  await pool.close();
});

test('a lower target drops what is too much; more than the most is refused', async () => {
  const { pool, made } = rig();
  pool.keep(order('a'), 2);
  await pool.full();
  pool.keep(order('a'), 0);
  assert.throws(() => pool.keep(order('b'), limits.poolTargetMax + 1), { code: 'E_LIMIT_INVALID' });
  await pool.close();
  assert.deepEqual(made.map(({ dropped }) => dropped), [1, 1]);
});

test('close reports a clone that would not end', async () => {
  const { pool, made } = rig();
  pool.keep(order('a'), 1);
  await pool.full();
  (made[0] as Made).drop = () => Promise.reject(new Error('it outlived SIGKILL'));
  await assert.rejects(pool.close(), /outlived/);
});
