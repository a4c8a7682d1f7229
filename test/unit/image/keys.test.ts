/**
 * Goal: one home has one key of its own, also when several processes need it for the first time at once.
 * Method: several openings of one folder, at once, each with randomness of its own.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openKeys } from '../../../src/image/keys.ts';

test('whoever needs the key first makes it, and everybody has the same', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'mayfly-keys-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const random = { bytes: (count: number) => randomBytes(count) };
  const signers = await Promise.all(Array.from({ length: 8 }, () => openKeys(home, random).own()));
  const ids = new Set(signers.map(({ keyId }) => keyId));
  assert.equal(ids.size, 1);
  assert.deepEqual([...(await openKeys(home, random).trusted()).keys()], [...ids]);
  const left = (await readdir(join(home, 'keys'))).sort();
  assert.deepEqual(left, ['signing.key', 'trusted'], 'nothing half-written stays');
});
