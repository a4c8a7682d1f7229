/** The store holds whole files under their own digests, and knows when one is not what it was. */
import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { digestOf } from '../../../src/core/json.ts';
import { limits } from '../../../src/core/limits.ts';
import { digestFile } from '../../../src/core/files.ts';
import { openStore } from '../../../src/image/store.ts';
import type { Artefact, Store } from '../../../src/image/store.ts';

async function rig(t: TestContext) {
  const home = await mkdtemp(join(tmpdir(), 'mayfly-store-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const store = openStore(home);
  const put = async (name: string, content: Buffer | string): Promise<Artefact> => {
    const file = join(home, 'incoming');
    await writeFile(file, content);
    const madeAt = '2026-01-01T00:00:00.000Z';
    return await store.put({ name, file, inputs: digestOf('inputs'), madeAt, meta: { a: 1 } });
  };
  return { home, store, put };
}

test('what is put in is found under its digest, read-only for everybody', async (t) => {
  const { home, store, put } = await rig(t);
  const put1 = await put('kernel', 'content');
  assert.equal(put1.digest, digestOf('content'));
  assert.equal(put1.bytes, 7);
  assert.deepEqual(await store.find('kernel'), put1);
  assert.equal(await readFile(put1.path, 'utf8'), 'content');
  assert.equal((await stat(put1.path)).mode & 0o777, 0o444);
  assert.ok(put1.path.startsWith(home));
  assert.deepEqual(await store.names(), ['kernel']);
  assert.equal(await store.intact(put1, 'quick'), true);
  assert.equal(await store.intact(put1, 'full'), true);
});

test('files of any size have the digest that they should have', async (t) => {
  const { home } = await rig(t);
  const around = [0, 1, limits.copyChunkBytes - 1, limits.copyChunkBytes, limits.copyChunkBytes + 1];
  for (const size of around) {
    const content = Buffer.alloc(size, 'x');
    await writeFile(join(home, 'file'), content);
    assert.deepEqual(await digestFile(join(home, 'file')), { digest: digestOf(content), bytes: size });
  }
});

test('a name means its newest content; the old blob stays until it is collected', async (t) => {
  const { store, put } = await rig(t);
  const before = await put('kernel', 'old content');
  const after = await put('kernel', 'new');
  const same = await put('other', 'new');
  assert.deepEqual(await store.find('kernel'), after);
  assert.equal(same.path, after.path);
  assert.equal(await store.intact(before, 'full'), true);
  assert.deepEqual(await store.referenced(), new Set([digestOf('new')]));
  assert.equal(await store.intact(after, 'quick'), true);
  assert.equal(await store.intact(same, 'quick'), true);
});

test('any single changed byte is found', async (t) => {
  const { store, put } = await rig(t);
  const content = Buffer.from('the bytes of a kernel');
  const change = fc.tuple(fc.nat({ max: content.length - 1 }), fc.integer({ min: 1, max: 255 }));
  await fc.assert(
    fc.asyncProperty(change, async ([at, flip]) => {
      const artefact = await put('kernel', content);
      const damaged = Buffer.from(content);
      damaged[at] = (damaged[at] ?? 0) ^ flip;
      await chmod(artefact.path, 0o644);
      await writeFile(artefact.path, damaged);
      assert.equal(await store.intact(artefact, 'quick'), false);
      assert.equal(await store.intact(artefact, 'full'), false);
    }),
    { numRuns: 25 },
  );
});

test('a record that is not one is as good as none', async (t) => {
  const { home, store, put } = await rig(t);
  await put('kernel', 'content');
  const path = join(home, 'artefacts', 'kernel.json');
  const record = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
  const wrong: string[] = [
    '', '{', 'null', '[]', '"x"',
    JSON.stringify({ ...record, artefactVersion: 2 }),
    JSON.stringify({ ...record, name: 'other' }),
    JSON.stringify({ ...record, digest: 'sha256:../../../../etc/passwd' }),
    JSON.stringify({ ...record, bytes: '7' }),
    JSON.stringify({ ...record, file: null }),
    JSON.stringify({ ...record, meta: 'x'.repeat(limits.artefactRecordBytesMax) }),
  ];
  for (const text of wrong) {
    await writeFile(path, text);
    assert.equal(await store.find('kernel'), undefined, text.slice(0, 80));
    assert.equal(await store.referenced(), undefined, 'it is unknown what is in use');
  }
});

test('what a crash leaves half-written is never seen', async (t) => {
  const { home, store, put } = await rig(t);
  await mkdir(join(home, 'artefacts'), { recursive: true });
  await writeFile(join(home, 'artefacts', 'kernel.json.half'), '{"artefactVersion":1,"name":"ker');
  assert.deepEqual(await store.names(), []);
  assert.equal(await store.find('kernel'), undefined);
  await put('kernel', 'content');
  assert.deepEqual(await store.names(), ['kernel']);
  assert.deepEqual(await readdir(join(home, 'artefacts')), ['kernel.json'], 'the half is gone');
});

test('an empty home has nothing, and asking creates nothing', async (t) => {
  const { home } = await rig(t);
  const store: Store = openStore(join(home, 'not-there'));
  assert.deepEqual(await store.names(), []);
  assert.equal(await store.find('kernel'), undefined);
  assert.deepEqual(await store.referenced(), new Set());
  assert.deepEqual(await readdir(home), []);
});
