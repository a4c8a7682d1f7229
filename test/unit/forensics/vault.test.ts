/** Goal: what was kept is read as it was written or not at all, and by nobody without the tenant's key (H7). */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readKey, readSealed, SealedWriter, tenantKey } from '../../../src/forensics/vault.ts';

const home = await mkdtemp(join(tmpdir(), 'mayfly-vault-'));
after(() => rm(home, { recursive: true }));
const random = { bytes: (size: number): Buffer => randomBytes(size) };
const key = randomBytes(32);
const pieces = [Buffer.from('one'), Buffer.alloc(200_000, 'canary-in-memory '), Buffer.from('three')];

async function sealed(name: string): Promise<string> {
  const writer = await SealedWriter.create(home, name, key, 'run memory');
  for (const piece of pieces) await writer.write(piece);
  const { bytes } = await writer.end();
  assert.equal((await readFile(join(home, name))).length, bytes);
  return join(home, name);
}

async function read(name: string, with_ = key, label = 'run memory'): Promise<Buffer[]> {
  const found: Buffer[] = [];
  for await (const piece of readSealed(home, name, with_, label)) found.push(piece);
  return found;
}

test('pieces come back as they were; nothing of them is on the disk', async () => {
  const path = await sealed('good');
  assert.deepEqual(await read('good'), pieces);
  const bytes = await readFile(path);
  assert.ok(!bytes.includes('canary-in-memory') && bytes.length < 5_000);
});

test('every changed byte, a cut, a swap of pieces, another key and another label are found', async () => {
  const path = await sealed('bad');
  const good = await readFile(path);
  for (let at = 0; at < good.length; at += 7) {
    const changed = Buffer.from(good);
    changed.writeUInt8(changed.readUInt8(at) ^ 1, at);
    await writeFile(path, changed);
    await assert.rejects(read('bad'), { code: 'E_FORENSICS_CORRUPT' }, `byte ${at}`);
  }
  for (const length of [0, 8, 20, good.length - 1, good.length - 30]) {
    await writeFile(path, good.subarray(0, length));
    await assert.rejects(read('bad'), { code: 'E_FORENSICS_CORRUPT' }, `cut to ${length}`);
  }
  const first = 8 + 21 + good.readUInt32LE(8);
  const second = first + 21 + good.readUInt32LE(first);
  const swapped = [good.subarray(0, 8), good.subarray(first, second), good.subarray(8, first), good.subarray(second)];
  await writeFile(path, Buffer.concat(swapped));
  await assert.rejects(read('bad'), { code: 'E_FORENSICS_CORRUPT' });
  await writeFile(path, good);
  await assert.rejects(read('bad', randomBytes(32)), { code: 'E_FORENSICS_CORRUPT' });
  await assert.rejects(read('bad', key, 'other memory'), { code: 'E_FORENSICS_CORRUPT' });
  assert.deepEqual(await read('bad'), pieces);
});

test('each tenant has a key of its own, made once; one that others can read is refused', async () => {
  await mkdir(join(home, 'keys'), { recursive: true });
  const one = await tenantKey(home, 'one', random);
  assert.deepEqual(await tenantKey(home, 'one', random), one);
  assert.notDeepEqual(await tenantKey(home, 'two', random), one);
  assert.deepEqual(await readKey(home, 'one'), one);
  await assert.rejects(readKey(home, 'none'), { code: 'E_FORENSICS_KEY' });
  await chmod(join(home, 'keys/forensics/one.key'), 0o644);
  await assert.rejects(tenantKey(home, 'one', random), { code: 'E_FORENSICS_KEY' });
  await writeFile(join(home, 'keys/forensics/two.key'), 'short');
  await assert.rejects(readKey(home, 'two'), { code: 'E_FORENSICS_KEY' });
});
