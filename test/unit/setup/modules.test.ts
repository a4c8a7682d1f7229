/** Kernel modules are loaded after what they need. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { dependenciesOf, loadOrder } from '../../../scripts/setup/modules.ts';

test('every module comes once, and after all that it needs', () => {
  // Any graph without circles: module i needs only modules below i.
  const graph = fc.array(fc.array(fc.nat(), { maxLength: 4 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(graph, fc.array(fc.nat(), { minLength: 1, maxLength: 5 }), (raw, picks) => {
      const needs = (name: string): string[] => {
        const i = Number(name);
        return i === 0 ? [] : (raw[i] ?? []).map((n) => String(n % i));
      };
      const wanted = picks.map((n) => String(n % raw.length));
      const order = loadOrder(wanted, needs);
      assert.equal(new Set(order).size, order.length);
      for (const name of wanted) assert.ok(order.includes(name));
      order.forEach((name, at) => {
        for (const needed of needs(name)) assert.ok(order.indexOf(needed) < at, `${needed} before ${name}`);
      });
    }),
  );
});

test('a circle is an error and not an endless loop', () => {
  const needs = (name: string): string[] => (name === 'a' ? ['b'] : ['a']);
  assert.throws(() => loadOrder(['a'], needs), /needs itself/);
});

test('dependencies are read from .modinfo', () => {
  const module = (info: string): Buffer => Buffer.concat([Buffer.from([0x7f, 0xff, 0]), Buffer.from(info, 'latin1')]);
  assert.deepEqual(dependenciesOf(module('license=GPL\0depends=virtio,crc\0name=x\0')), ['virtio', 'crc']);
  assert.deepEqual(dependenciesOf(module('license=GPL\0depends=\0')), []);
  assert.deepEqual(dependenciesOf(module('license=GPL\0softdepends=no\0')), []);
});
