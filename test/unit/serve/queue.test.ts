/** Goal: nobody's many events keep another one's few waiting, and nothing is lost, doubled or turned over. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FairQueue } from '../../../src/serve/queue.ts';
import type { Waiting } from '../../../src/serve/queue.ts';

const any = (): boolean => true;

test('tenants take turns, and within a tenant its functions', () => {
  const queue = new FairQueue({ most: 1000 });
  for (let i = 0; i < 100; i++) queue.push({ id: `a${i}`, tenant: 'a', function: 'f' });
  queue.push({ id: 'b0', tenant: 'b', function: 'f' });
  queue.push({ id: 'a-g', tenant: 'a', function: 'g' });
  const order = Array.from({ length: 5 }, () => queue.take(any)?.id);
  assert.deepEqual(order, ['a0', 'b0', 'a-g', 'a1', 'a2']);
});

test('C9: a full queue says so before anything is accepted', () => {
  const queue = new FairQueue({ most: 3 });
  assert.equal(queue.room('a', 3, 10), 'room');
  assert.equal(queue.room('a', 4, 10), 'full');
  assert.equal(queue.room('a', 3, 2), 'tenant-full');
  for (const id of ['1', '2']) queue.push({ id, tenant: 'a', function: 'f' });
  assert.equal(queue.room('b', 2, 10), 'full');
  assert.equal(queue.room('b', 1, 10), 'room');
});

test('property: in order for each function, nothing lost, and no waiting tenant is passed over twice in a row', () => {
  const item = fc.record({ tenant: fc.constantFrom('a', 'b', 'c'), function: fc.constantFrom('f', 'g') });
  fc.assert(
    fc.property(fc.array(item, { maxLength: 60 }), fc.array(fc.boolean(), { maxLength: 200 }), (items, pushes) => {
      const queue = new FairQueue({ most: 1000 });
      const waiting = items.map((each, index) => ({ ...each, id: String(index).padStart(3, '0') }));
      const taken: Waiting[] = [];
      const passed = new Map<string, number>();
      const left = [...waiting];
      const takeOne = (): void => {
        const before = new Set(['a', 'b', 'c'].filter((tenant) => queue.lengthOf(tenant) > 0));
        const next = queue.take(any);
        if (next === undefined) return assert.equal(before.size, 0);
        taken.push(next);
        for (const tenant of before) passed.set(tenant, tenant === next.tenant ? 0 : (passed.get(tenant) ?? 0) + 1);
        for (const count of passed.values()) assert.ok(count <= 2);
      };
      for (const push of pushes) {
        const next = push ? left.shift() : undefined;
        if (next !== undefined) queue.push(next);
        else takeOne();
      }
      for (const next of left) queue.push(next);
      while (queue.length > 0) takeOne();
      assert.deepEqual(taken.map(({ id }) => id).sort(), waiting.map(({ id }) => id));
      for (const tenant of ['a', 'b', 'c']) {
        for (const name of ['f', 'g']) {
          const ids = taken.filter((each) => each.tenant === tenant && each.function === name).map(({ id }) => id);
          assert.deepEqual(ids, [...ids].sort());
        }
      }
    }),
  );
});

test('what may not run now keeps its place and does not hold others up', () => {
  const queue = new FairQueue({ most: 10 });
  for (const id of ['1', '2']) queue.push({ id, tenant: 'a', function: 'busy' });
  queue.push({ id: '3', tenant: 'a', function: 'free' });
  const free = ({ function: name }: Waiting): boolean => name === 'free';
  assert.deepEqual(
    [queue.take(free)?.id, queue.take(free), queue.take(any)?.id, queue.take(any)?.id],
    ['3', undefined, '1', '2'],
  );
});
