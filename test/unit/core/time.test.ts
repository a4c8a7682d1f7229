/** Goal: a race against a deadline has one winner and leaves no timer behind, whoever wins. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isoTime, within } from '../../../src/core/time.ts';
import type { Clock } from '../../../src/core/time.ts';

/** A clock that stands still until it is told to fire. */
class StillClock implements Clock {
  readonly timers = new Map<number, { millis: number; fire: () => void }>();
  #next = 0;

  now(): number {
    return 0;
  }

  wallNanos(): bigint {
    return 0n;
  }

  after(millis: number, fire: () => void): () => void {
    const id = this.#next++;
    this.timers.set(id, { millis, fire });
    return () => this.timers.delete(id);
  }
}

const late = (): Error => new Error('late');

test('work that ends in time has its value, and the timer is gone', async () => {
  const clock = new StillClock();
  const race = within(clock, 250, Promise.resolve(7), late);
  assert.deepEqual([...clock.timers.values()].map(({ millis }) => millis), [250]);
  assert.equal(await race, 7);
  assert.equal(clock.timers.size, 0);
});

test('work that fails in time fails with its own error, and the timer is gone', async () => {
  const clock = new StillClock();
  await assert.rejects(within(clock, 250, Promise.reject(new Error('own')), late), /own/);
  assert.equal(clock.timers.size, 0);
});

test('work that never ends is late, and the timer is gone', async () => {
  const clock = new StillClock();
  const race = within(clock, 250, new Promise(() => {}), late);
  for (const { fire } of clock.timers.values()) fire();
  await assert.rejects(race, /late/);
  assert.equal(clock.timers.size, 0);
});

test('work that fails after its deadline is not an unhandled rejection', async () => {
  const clock = new StillClock();
  let fail = (_: Error): void => {};
  const race = within(clock, 250, new Promise<never>((_resolve, reject) => (fail = reject)), late);
  for (const { fire } of clock.timers.values()) fire();
  await assert.rejects(race, /late/);
  fail(new Error('much too late'));
  await new Promise((settle) => setImmediate(settle));
});

test('wall time as ISO 8601, to the millisecond', () => {
  assert.equal(isoTime(0n), '1970-01-01T00:00:00.000Z');
  assert.equal(isoTime(1_700_000_000_123_999_999n), '2023-11-14T22:13:20.123Z');
});
