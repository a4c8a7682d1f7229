/** Goal: an image comes back from a layout exactly as it left, or not at all. Method: round trips, and damage. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { canonicalJson, digestOf } from '../../../src/core/json.ts';
import { imageRig, silent, stranger } from './rig.ts';
import type { ImageRig } from './rig.ts';

const refused = { code: 'E_IMAGE_MANIFEST' } as const;

async function pair(t: TestContext) {
  const from = await imageRig(t, 1);
  const to = await imageRig(t, 2);
  const parent = await mkdtemp(join(tmpdir(), 'mayfly-layout-'));
  t.after(() => rm(parent, { recursive: true, force: true }));
  const image = await from.make('the base');
  const folder = join(parent, 'layout');
  const trust = async (): Promise<void> => void (await to.keys.trust(Buffer.from(await from.keys.ownPublic()), 'from'));
  return { from, to, image, folder, parent, trust };
}

async function filesOf(folder: string): Promise<Record<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const pairOf = async (path: string) => [path.slice(folder.length), await readFile(path, 'latin1')] as const;
  const pairs = await Promise.all(files.map(pairOf));
  return Object.fromEntries(pairs.sort());
}

test('out and in again: the same digest, signatures and bytes, and the next export is the same', async (t) => {
  const { from, to, image, folder, parent, trust } = await pair(t);
  let [passed, total] = [0, 0];
  const watch = { ...silent, passed: (bytes: number) => (passed += bytes), total: (bytes: number) => (total += bytes) };
  assert.deepEqual(await from.export('node', folder, watch), image);
  assert.deepEqual([passed, total], ['the base'.length, 'the base'.length]);
  assert.equal(await to.isExported(folder), true);
  await assert.rejects(to.import(folder, silent, {}), { code: 'E_IMAGE_UNSIGNED' });
  assert.deepEqual(await to.catalogue.blobs.list(), [], 'nothing was copied before it was believed');
  await trust();
  assert.deepEqual(await to.import(folder, silent, { tag: 'node:vendor' }), image);
  assert.deepEqual(await to.catalogue.find('node:vendor'), image);
  await to.catalogue.requireIntact(image, 'full');
  const again = join(parent, 'again');
  await to.export('node:vendor', again, silent);
  assert.deepEqual(await filesOf(again), await filesOf(folder));
  assert.deepEqual((await readdir(join(to.home, 'images'))).sort(), ['lock', 'manifests', 'tags']);
});

test('an image with layers keeps them', async (t) => {
  const { from, to, image, folder, trust } = await pair(t);
  const layer = await from.make('a layer', { name: 'other' });
  const manifest = { ...image.manifest, name: 'tall', layers: [layer.manifest.fileSystem] };
  const tall = await from.catalogue.publish(manifest, 'tall:latest');
  await from.export('tall', folder, silent);
  await trust();
  assert.deepEqual(await to.import(folder, silent, {}), tall);
  assert.equal((await to.catalogue.blobs.list()).length, 2);
});

test('unsigned goes out and comes in only when allowed, and then still does not run', async (t) => {
  const { to, image, from, folder, damage } = await (async () => {
    const it = await pair(t);
    return { ...it, damage: it.from.damage };
  })();
  await damage(from.manifestPath(image.digest), (text) => text.replace(/"signatures":\[.*\]/, '"signatures":[]'));
  await from.export('node', folder, silent);
  await assert.rejects(to.import(folder, silent, {}), { code: 'E_IMAGE_UNSIGNED' });
  await to.import(folder, silent, { allowUnsigned: true });
  await assert.rejects(to.catalogue.find('node'), { code: 'E_IMAGE_UNSIGNED' });
  await to.catalogue.sign('node');
  assert.equal((await to.catalogue.find('node')).digest, image.digest);
});

test('an older image from a layout does not take over a tag', async (t) => {
  const { from, to, folder, trust } = await pair(t);
  await from.export('node', folder, silent);
  await trust();
  await to.make('newer', { created: '2027-01-01T00:00:00.000Z' });
  await assert.rejects(to.import(folder, silent, {}), { code: 'E_IMAGE_DOWNGRADE' });
});

/** Rewrites the OCI manifest and whatever names it. */
async function rewrite(folder: string, change: (document: Record<string, unknown>) => void): Promise<void> {
  const index = JSON.parse(await readFile(join(folder, 'index.json'), 'utf8')) as {
    manifests: { digest: string; size: number }[];
  };
  const entry = index.manifests[0] ?? assert.fail();
  const blob = (digest: string): string => join(folder, 'blobs', 'sha256', digest.slice(7));
  const document = JSON.parse(await readFile(blob(entry.digest), 'utf8')) as Record<string, unknown>;
  change(document);
  const bytes = canonicalJson(document);
  entry.digest = digestOf(bytes);
  entry.size = bytes.length;
  await writeFile(blob(entry.digest), bytes);
  await writeFile(join(folder, 'index.json'), canonicalJson(index));
}

test('tampered, cut off, swapped, linked: refused, and nothing stays behind', async (t) => {
  const { from, to, image, trust, parent } = await pair(t);
  await trust();
  const base = image.manifest.fileSystem.digest;
  const blob = (folder: string, digest: string): string => join(folder, 'blobs', 'sha256', digest.slice(7));
  const other = digestOf('other');
  const attacks: Readonly<Record<string, (folder: string, rig: ImageRig) => Promise<void>>> = {
    'a changed byte': (folder, rig) => rig.damage(blob(folder, base), (text) => text.replace('t', 'T')),
    'a file system cut off': (folder) => truncate(blob(folder, base), 3),
    'a file system with more': (folder, rig) => rig.damage(blob(folder, base), (text) => `${text}!`),
    'no file system': (folder) => rm(blob(folder, base)),
    'a link as file system': async (folder) => {
      await rm(blob(folder, base));
      await symlink('/etc/hostname', blob(folder, base));
    },
    'a manifest cut off': (folder) => truncate(blob(folder, image.digest), 100),
    'an edited manifest': (folder, rig) => rig.damage(blob(folder, image.digest), (text) => text.replace('24', '25')),
    'no index': (folder) => rm(join(folder, 'index.json')),
    'an index cut off': (folder) => truncate(join(folder, 'index.json'), 50),
    'another layer': (folder) => rewrite(folder, (it) => {
      it['layers'] = [{ mediaType: 'application/vnd.mayfly.image.filesystem.v1.erofs', digest: other, size: 5 }];
    }),
    'a path as digest': (folder) => rewrite(folder, (it) => {
      it['config'] = { ...(it['config'] as object), digest: 'sha256:../../../../etc/passwd' };
    }),
    'no signatures': (folder) => rewrite(folder, (it) => void (it['annotations'] = {})),
    'nonsense as signatures': (folder) => rewrite(folder, (it) => {
      it['annotations'] = { 'dev.mayfly.image.signatures': '[{"algorithm":"none"}]' };
    }),
  };
  for (const [name, attack] of Object.entries(attacks)) {
    const folder = join(parent, name);
    await from.export('node', folder, silent);
    await attack(folder, from);
    await assert.rejects(to.import(folder, silent, { allowUnsigned: true }), refused, name);
    const { images, problems } = await to.catalogue.list();
    assert.deepEqual([images, problems, await to.catalogue.blobs.list()], [[], [], []], name);
  }
});

test('a signature that does not fit its trusted key is refused, whatever is allowed', async (t) => {
  const { from, to, folder, trust } = await pair(t);
  const second = await from.make('second', { name: 'second' });
  await from.export('node', folder, silent);
  await trust();
  await rewrite(folder, (it) => {
    it['annotations'] = { 'dev.mayfly.image.signatures': canonicalJson(second.signatures) };
  });
  await assert.rejects(to.import(folder, silent, { allowUnsigned: true }), { code: 'E_IMAGE_SIGNATURE' });
});

test('an export that fails or is interrupted leaves no folder, and never replaces one', async (t) => {
  const { from, image, folder, parent } = await pair(t);
  const stopped = { ...silent, signal: AbortSignal.abort() };
  await assert.rejects(from.export('node', folder, stopped), { code: 'E_INTERRUPTED' });
  await from.damage(from.catalogue.blobs.path(image.manifest.fileSystem.digest), (text) => text.toUpperCase());
  await assert.rejects(from.export('node', folder, silent), { code: 'E_ARTEFACT_CORRUPT' });
  assert.deepEqual(await readdir(parent), []);
  await writeFile(folder, 'mine');
  await assert.rejects(from.export('node', folder, silent), { code: 'E_USAGE', message: /there already/ });
  assert.equal(await readFile(folder, 'utf8'), 'mine');
});

test('somebody else\'s layout is told from ours by its content', async (t) => {
  const { to, parent } = await pair(t);
  await writeFile(join(parent, 'index.json'), '{"schemaVersion":2,"manifests":[{"digest":"x"}]}');
  assert.equal(await to.isExported(parent), false);
  assert.equal(await to.isExported(join(parent, 'nowhere')), false);
  assert.ok(stranger().keyId.startsWith('sha256:'));
});
