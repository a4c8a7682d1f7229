/** The product sees whole, intact, signed images that fit this machine, or is told with a code what is wrong. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { digestOf } from '../../../src/core/json.ts';
import { openRepository } from '../../../src/image/repository.ts';
import { openStore } from '../../../src/image/store.ts';
import { imageRig } from './rig.ts';

async function rig(t: TestContext, artefacts: readonly string[] = ['kernel', 'initramfs']) {
  const images = await imageRig(t);
  const store = openStore(images.home);
  const put = async (name: string): Promise<string> => {
    const file = join(images.home, 'made');
    await writeFile(file, `content of ${name}`);
    const meta = { release: '6.1.0-test' };
    return (await store.put({ name, file, inputs: digestOf(name), madeAt: '2026-01-01T00:00:00.000Z', meta })).path;
  };
  const paths: Record<string, string> = {};
  for (const name of artefacts) paths[name] = await put(name);
  return { ...images, paths };
}

test('kernel, initramfs and images are there, with what is needed to start them', async (t) => {
  const { home, make } = await rig(t);
  const node = await make('node');
  await make('shell', { name: 'shell', runtime: null });
  const repository = await openRepository(home);
  assert.equal(repository.kernel.digest, digestOf('content of kernel'));
  assert.equal(repository.initramfs.digest, digestOf('content of initramfs'));
  assert.deepEqual(repository.images.list().map(({ name }) => name), ['node', 'shell']);
  const image = await repository.images.get('node');
  assert.equal(image.digest, digestOf('node'));
  assert.equal(image.manifestDigest, node.digest);
  assert.deepEqual(image.runtime, node.manifest.runtime);
  assert.deepEqual(image.packages, ['libc6=2.36-9', 'libstdc++6=12.2']);
  assert.deepEqual(await repository.images.get('node:latest'), image);
  assert.deepEqual(await repository.images.get(node.digest), image);
  assert.equal((await repository.images.get('shell')).runtime, null);
});

test('what has not been built says how to build it', async (t) => {
  const { home } = await rig(t, ['kernel']);
  await assert.rejects(openRepository(home), { code: 'E_SETUP_MISSING', message: /initramfs/ });
  await assert.rejects(openRepository(join(home, 'nowhere')), { code: 'E_SETUP_MISSING', message: /kernel/ });
  const { home: imageless } = await rig(t);
  const repository = await openRepository(imageless);
  await assert.rejects(repository.images.get('node'), { code: 'E_SETUP_MISSING' });
});

test('an unknown image names those that there are', async (t) => {
  const { home, make } = await rig(t);
  await make('node');
  await make('strict', {}, 'node:strict');
  const repository = await openRepository(home);
  const names = ['ruby', '', '../kernel', 'image-node', '__proto__', 'node:..', 'node:', 'a:b:c', digestOf('nothing')];
  for (const name of names) {
    await assert.rejects(repository.images.get(name), { code: 'E_IMAGE_UNKNOWN', message: /node, node:strict/ }, name);
  }
});

test('damage is found before anything boots from it', async (t) => {
  const { home, make, damage, paths, catalogue } = await rig(t);
  const { manifest } = await make('node');
  await make('shell', { name: 'shell' });
  await damage(catalogue.blobs.path(manifest.fileSystem.digest), () => 'NODE');
  const repository = await openRepository(home);
  await assert.rejects(repository.images.get('node'), { code: 'E_ARTEFACT_CORRUPT', message: /node/ });
  assert.equal((await repository.images.get('shell')).name, 'shell');
  await damage(paths['kernel'] ?? '', (text) => text.toUpperCase());
  await assert.rejects(openRepository(home), { code: 'E_ARTEFACT_CORRUPT', message: /kernel/ });
});

test('an image that this machine cannot run is refused before a clone is made', async (t) => {
  const { home, make } = await rig(t);
  await make('new', { name: 'new', kernel: { minimum: '6.12' } });
  const repository = await openRepository(home);
  await assert.rejects(repository.images.get('new'), { code: 'E_IMAGE_INCOMPATIBLE', message: /6\.12/ });
});

test('an image of several file systems has a digest of its own, and all of them must be intact', async (t) => {
  const { home, make, catalogue, damage } = await rig(t);
  const { manifest: { fileSystem } } = await make('base');
  const other = await make('above', { name: 'other' });
  const layers = [other.manifest.fileSystem];
  await catalogue.publish({ ...other.manifest, name: 'tall', fileSystem, layers }, 'tall:latest');
  const repository = await openRepository(home);
  const [low, tall] = [await repository.images.get('node'), await repository.images.get('tall')];
  assert.deepEqual([low.contentDigest, low.layers], [low.digest, []]);
  assert.equal(tall.digest, low.digest);
  assert.notEqual(tall.contentDigest, low.contentDigest);
  assert.deepEqual(tall.layers.map(({ digest }) => digest), [other.manifest.fileSystem.digest]);
  await damage(catalogue.blobs.path(other.manifest.fileSystem.digest), () => 'ABOVE');
  await assert.rejects(repository.images.get('tall'), { code: 'E_ARTEFACT_CORRUPT' });
});

test('a home that was copied elsewhere works', async (t) => {
  const { home, make } = await rig(t);
  await make('node');
  const copy = await mkdtemp(join(tmpdir(), 'mayfly-repository-'));
  t.after(() => rm(copy, { recursive: true, force: true }));
  await cp(home, copy, { recursive: true });
  const repository = await openRepository(copy);
  assert.ok((await repository.images.get('node')).path.startsWith(copy));
});
