/** Goal: what anybody can still name stays, the rest goes. Method: every kind of reference in turn, and none. */
import assert from 'node:assert/strict';
import { mkdir, readdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestOf } from '../../../src/core/json.ts';
import { openAdmin } from '../../../src/image/admin.ts';
import { createDisk } from '../../../src/core/disk.ts';
import { openStore } from '../../../src/image/store.ts';
import { imageRig } from './rig.ts';

const all = { dryRun: false, graceMillis: 0 } as const;

test('an untagged image goes with bytes that no other image has; a dry run only says so', async (t) => {
  const { home, catalogue, collect, make } = await imageRig(t);
  const shared = await make('shared');
  await make('shared', { name: 'twin' });
  const alone = await make('alone', { name: 'alone' });
  assert.deepEqual(await collect(all), { manifests: [], blobs: [], bytes: 0 });
  await catalogue.untag('node:latest');
  await catalogue.untag('alone:latest');
  const expected = {
    manifests: [shared.digest, alone.digest].sort(),
    blobs: [{ digest: digestOf('alone'), bytes: 5 }],
    bytes: 5,
  };
  const sorted = (gone: Awaited<ReturnType<typeof collect>>) => ({ ...gone, manifests: [...gone.manifests].sort() });
  assert.deepEqual(sorted(await collect({ ...all, dryRun: true })), expected);
  assert.equal((await catalogue.list()).images.length, 3);
  await mkdir(join(home, 'images', 'importing-1-2'));
  await writeFile(join(home, 'images', 'importing-1-2', 'file-system'), 'half');
  assert.deepEqual(sorted(await collect(all)), expected);
  assert.deepEqual((await catalogue.blobs.list()).map(({ digest }) => digest), [digestOf('shared')]);
  await catalogue.requireIntact(await catalogue.find('twin'), 'full');
  assert.deepEqual(await readdir(join(home, 'images')), ['lock', 'manifests', 'tags'], 'nor what a killed import left');
});

test('templates and artefacts of set-up keep what they are made from', async (t) => {
  const { home, catalogue, collect, make } = await imageRig(t);
  const image = await make('base');
  await catalogue.untag('node:latest');
  const store = openStore(home);
  await writeFile(join(home, 'made'), 'kernel');
  const madeAt = '2026-01-01T00:00:00.000Z';
  await store.put({ name: 'kernel', file: join(home, 'made'), inputs: digestOf(''), madeAt, meta: {} });
  const template = join(home, 'templates', 'node-abc');
  await mkdir(template, { recursive: true });
  const seal = { templateVersion: 1, image: 'node', baseImage: image.manifest.fileSystem.digest };
  await writeFile(join(template, 'template.json'), `${JSON.stringify(seal, null, 2)}\n`);
  assert.deepEqual(await collect(all), { manifests: [], blobs: [], bytes: 0 });
  await writeFile(join(template, 'template.json'), '{}');
  assert.deepEqual((await collect(all)).manifests, [image.digest]);
  assert.deepEqual((await catalogue.blobs.list()).map(({ digest }) => digest), [digestOf('kernel')]);
});

test('the young stay for as long as somebody may be about to name them', async (t) => {
  const { home, catalogue, make, manifestPath } = await imageRig(t);
  const image = await make('base');
  await catalogue.untag('node:latest');
  const random = { bytes: (size: number) => Buffer.alloc(size) };
  const at = (now: number) => openAdmin({ home, random, disk: createDisk(), now: () => now, process: 'test' });
  const grace = { dryRun: false, graceMillis: 60_000 };
  await utimes(manifestPath(image.digest), new Date(1_000_000_000), new Date(1_000_000_000));
  assert.deepEqual((await at(1_000_030_000).collect(grace)).manifests, []);
  const gone = await at(Date.now() + 120_000).collect(grace);
  assert.deepEqual([gone.manifests, gone.bytes], [[image.digest], 4]);
});

test('while anything that could name something is unreadable, nothing goes', async (t) => {
  const { home, catalogue, collect, make, damage, tagPath, manifestPath } = await imageRig(t);
  const image = await make('base');
  await make('gone', { name: 'gone' }, 'gone:latest');
  await catalogue.untag('gone:latest');
  const attacks = [tagPath('node', 'latest'), manifestPath(image.digest)];
  for (const path of attacks) {
    let good = '';
    await damage(path, (text) => {
      good = text;
      return text.slice(1);
    });
    await assert.rejects(collect(all), { code: 'E_ARTEFACT_CORRUPT', message: /Nothing was removed/ });
    await damage(path, () => good);
  }
  await mkdir(join(home, 'artefacts'));
  await writeFile(join(home, 'artefacts', 'kernel.json'), 'nonsense');
  await assert.rejects(collect(all), { code: 'E_ARTEFACT_CORRUPT', message: /set-up/ });
  assert.equal((await catalogue.blobs.list()).length, 2);
});
