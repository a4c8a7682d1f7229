/** Goal: run ids sort by time of acceptance, never repeat, and say when they were made; uuids are of version 4. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { isRunId, newRunId, newUuid, runIdMillis } from '../../../src/core/ids.ts';
import type { Clock } from '../../../src/core/time.ts';

const random = { bytes: (size: number) => randomBytes(size) };

function at(millis: number): Clock {
  return { now: () => 0, wallNanos: () => BigInt(millis) * 1_000_000n, after: () => () => {} };
}

/** All that 48 bits hold. */
const millis = fc.integer({ min: 0, max: 2 ** 48 - 1 });

test('a run id is one, and tells its millisecond', () => {
  fc.assert(fc.property(millis, (when) => {
    const id = newRunId(at(when), random);
    assert.ok(isRunId(id));
    assert.equal(runIdMillis(id), when);
  }));
});

test('ids sort as their times do', () => {
  fc.assert(fc.property(millis, millis, (a, b) => {
    fc.pre(a !== b);
    assert.equal(newRunId(at(a), random) < newRunId(at(b), random), a < b);
  }));
});

test('ids of one millisecond differ by 80 random bits', () => {
  const ids = new Set(Array.from({ length: 10_000 }, () => newRunId(at(1_700_000_000_000), random)));
  assert.equal(ids.size, 10_000);
  const ones = newRunId(at(0), { bytes: (size) => Buffer.alloc(size, 0xff) });
  assert.equal(ones, `${'0'.repeat(10)}${'Z'.repeat(16)}`);
});

test('what is not a run id is refused: it names folders', () => {
  const id = newRunId(at(0), random);
  const wrong = ['', '.', '..', '../x', id.slice(1), `${id}0`, id.toLowerCase(), `${id.slice(0, 25)}U`, `${id}\n`];
  for (const text of wrong) {
    assert.equal(isRunId(text), false, JSON.stringify(text));
  }
});

test('a uuid has version 4 and its variant, and all other bits are random', () => {
  const form = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
  for (let i = 0; i < 1000; i++) assert.match(newUuid(random), form);
  assert.equal(newUuid({ bytes: (size) => Buffer.alloc(size) }), '00000000-0000-4000-8000-000000000000');
  assert.equal(newUuid({ bytes: (size) => Buffer.alloc(size, 0xff) }), 'ffffffff-ffff-4fff-bfff-ffffffffffff');
});
