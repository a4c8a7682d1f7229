/**
 * Goal: 20 images with 100 templates stay within the stated budget, counted as the disk counts them; what goes is what
 * was used longest ago, and only as much as has to. Method: sparse RAM files, as real templates have them, and the rule
 * alone with random stocks.
 */
import assert from 'node:assert/strict';
import {
  closeSync, existsSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { discard, listStock, markUsed, overBudget } from '../../../src/clone/stock.ts';
import { createDisk } from '../../../src/core/disk.ts';
import { limits } from '../../../src/core/limits.ts';

const root = mkdtempSync(join(tmpdir(), 'mayfly-stock-'));
after(() => rmSync(root, { recursive: true }));

const MiB = 1024 * 1024;
const NOW = 1_764_000_000_000;
const LONG_AGO = NOW - 10 * limits.templateRestMillis;

/** 448 MiB of RAM, of which a quarter of a MiB was ever touched. */
async function make(key: string, image: string, usedAt: number): Promise<void> {
  mkdirSync(join(root, key));
  writeFileSync(join(root, key, 'template.json'), JSON.stringify({ image }));
  writeFileSync(join(root, key, 'state'), 'state');
  const file = openSync(join(root, key, 'ram'), 'w');
  ftruncateSync(file, 448 * MiB);
  writeSync(file, Buffer.alloc(MiB / 4, 1), 0, MiB / 4, 100 * MiB);
  closeSync(file);
  await markUsed(join(root, key), usedAt);
}

test('100 templates of 20 images: holes count nothing, and the budget holds to the last template', async () => {
  for (let index = 0; index < 100; index++) {
    await make(`i${index % 20}-${String(index).padStart(3, '0')}`, `i${index % 20}`, LONG_AGO + index * 1000);
  }
  mkdirSync(join(root, 'building-1-2-i0'));
  writeFileSync(join(root, 'i0-000.lock'), '');
  const stock = await listStock(root);
  assert.equal(stock.length, 100);
  const bytes = stock.reduce((sum, template) => sum + template.bytes, 0);
  assert.ok(bytes >= 25 * MiB && bytes < 27 * MiB, `${bytes} bytes for 44 GiB of RAM`);
  const going = overBudget(stock, { bytesMax: 10 * MiB, now: NOW, keep: 'i0-000' });
  const gone = await discard(root, going);
  assert.deepEqual(gone, going);
  const left = await listStock(root);
  const remaining = left.reduce((sum, template) => sum + template.bytes, 0);
  assert.ok(remaining <= 10 * MiB && remaining > 9.5 * MiB, `${remaining}`);
  assert.ok(left.some(({ key }) => key === 'i0-000'), 'the one that was just built');
  const oldest = Math.min(...left.filter(({ key }) => key !== 'i0-000').map(({ usedAt }) => usedAt));
  assert.ok(gone.every(({ usedAt }) => usedAt < oldest));
});

test('what somebody is building stays', async () => {
  await make('busy-1', 'busy', LONG_AGO);
  const unlock = await createDisk().lock(join(root, 'busy-1.lock'), 1000);
  const [template] = (await listStock(root)).filter(({ image }) => image === 'busy');
  assert.ok(template !== undefined);
  assert.deepEqual(await discard(root, [template]), []);
  await unlock();
  assert.deepEqual(await discard(root, [template]), [template]);
  assert.equal(existsSync(join(root, 'busy-1')), false);
});

test('property: as few as possible go, the oldest first, and never one in use', () => {
  const one = fc.record({ bytes: fc.integer({ min: 1, max: 100 }), ago: fc.integer({ min: 0, max: 300_000 }) });
  fc.assert(fc.property(fc.array(one, { maxLength: 12 }), fc.nat(400), (templates, bytesMax) => {
    const stock = templates.map(({ bytes, ago }, index) => {
      return { key: `k${index}`, image: 'x', bytes, usedAt: NOW - ago };
    });
    const going = overBudget(stock, { bytesMax, now: NOW, keep: 'k0' });
    const total = stock.reduce((sum, { bytes }) => sum + bytes, 0);
    const freed = going.reduce((sum, { bytes }) => sum + bytes, 0);
    const free = ({ key, usedAt }: (typeof stock)[number]): boolean =>
      key !== 'k0' && NOW - usedAt >= limits.templateRestMillis;
    assert.ok(going.every(free));
    assert.ok(total - freed <= bytesMax || going.length === stock.filter(free).length, 'more could have gone');
    assert.ok(going.length === 0 || total - freed + (going.at(-1)?.bytes ?? 0) > bytesMax, 'one too many went');
  }));
});
