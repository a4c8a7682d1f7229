/** The product sees whole, intact files, or is told with a code what is wrong and what to do. */
import assert from 'node:assert/strict';
import { chmod, cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { digestOf } from '../../../src/core/json.ts';
import { openRepository } from '../../../src/image/repository.ts';
import { openStore } from '../../../src/image/store.ts';
import type { Artefact, Meta } from '../../../src/image/store.ts';

const runtime = { argv: ['/usr/bin/node'], env: ['HOME=/tmp'] };
const node: Meta = { description: 'Node', runtime, packages: ['libc6=2.36'] };
const shell: Meta = { description: 'BusyBox', runtime: null, packages: [] };

async function rig(t: TestContext, artefacts: Readonly<Record<string, Meta>>) {
  const home = await mkdtemp(join(tmpdir(), 'mayfly-repository-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const store = openStore(home);
  const made = new Map<string, Artefact>();
  for (const [name, meta] of Object.entries(artefacts)) {
    const file = join(home, 'incoming');
    await writeFile(file, `content of ${name}`);
    made.set(name, await store.put({ name, file, inputs: digestOf(name), madeAt: '2026-01-01T00:00:00.000Z', meta }));
  }
  const damage = async (name: string): Promise<void> => {
    const path = made.get(name)?.path ?? assert.fail(name);
    await chmod(path, 0o644);
    await writeFile(path, `CONTENT of ${name}`);
  };
  return { home, damage };
}

const everything = { kernel: {}, initramfs: {}, modules: {}, agent: {}, 'image-node': node, 'image-shell': shell };

test('kernel, initramfs and images are there, with what is needed to start them', async (t) => {
  const { home } = await rig(t, everything);
  const repository = await openRepository(home);
  assert.equal(repository.kernel.digest, digestOf('content of kernel'));
  assert.equal(repository.initramfs.digest, digestOf('content of initramfs'));
  assert.deepEqual(repository.images.list().map(({ name }) => name), ['node', 'shell']);
  const image = await repository.images.get('node');
  assert.equal(image.digest, digestOf('content of image-node'));
  assert.deepEqual(image.runtime, runtime);
  assert.equal((await repository.images.get('shell')).runtime, null);
});

test('what has not been built says how to build it', async (t) => {
  const { home } = await rig(t, { kernel: {} });
  await assert.rejects(openRepository(home), { code: 'E_SETUP_MISSING', message: /initramfs/ });
  await assert.rejects(openRepository(join(home, 'nowhere')), { code: 'E_SETUP_MISSING', message: /kernel/ });
  const { home: imageless } = await rig(t, { kernel: {}, initramfs: {} });
  const repository = await openRepository(imageless);
  await assert.rejects(repository.images.get('node'), { code: 'E_SETUP_MISSING' });
});

test('an unknown image names those that there are', async (t) => {
  const { home } = await rig(t, everything);
  const repository = await openRepository(home);
  for (const name of ['ruby', '', '../kernel', 'image-node', '__proto__']) {
    await assert.rejects(repository.images.get(name), { code: 'E_IMAGE_UNKNOWN', message: /node, shell/ });
  }
});

test('damage is found before anything boots from it', async (t) => {
  const { home, damage } = await rig(t, everything);
  await damage('image-node');
  const repository = await openRepository(home);
  await assert.rejects(repository.images.get('node'), { code: 'E_ARTEFACT_CORRUPT', message: /image-node/ });
  assert.equal((await repository.images.get('shell')).name, 'shell');
  await damage('kernel');
  await assert.rejects(openRepository(home), { code: 'E_ARTEFACT_CORRUPT', message: /kernel/ });
});

test('a record without what an image needs is damage, too', async (t) => {
  const text = { argv: 'x', env: [] };
  for (const meta of [{}, { ...node, runtime: {} }, { ...node, runtime: text }, { ...node, packages: 1 }]) {
    const { home } = await rig(t, { ...everything, 'image-node': meta });
    await assert.rejects(openRepository(home), { code: 'E_ARTEFACT_CORRUPT' });
  }
});

test('a home that was copied elsewhere works', async (t) => {
  const { home } = await rig(t, everything);
  const copy = await mkdtemp(join(tmpdir(), 'mayfly-repository-'));
  t.after(() => rm(copy, { recursive: true, force: true }));
  await cp(home, copy, { recursive: true });
  const repository = await openRepository(copy);
  assert.ok((await repository.images.get('node')).path.startsWith(copy));
});
