/** Goal: what set-up builds becomes a signed image, once, and again when anything about it was damaged or changed. */
import assert from 'node:assert/strict';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { manifestOf, publishImage } from '../../../scripts/setup/manifests.ts';
import { readRecipes } from '../../../scripts/setup/recipe.ts';
import type { Workshop } from '../../../scripts/setup/workshop.ts';
import { digestOf } from '../../../src/core/json.ts';
import { encodeManifest, parseManifest } from '../../../src/image/manifest.ts';
import { openStore } from '../../../src/image/store.ts';
import { imageRig } from '../image/rig.ts';

const root = join(import.meta.dirname, '../../..');

async function rig(t: TestContext) {
  const images = await imageRig(t);
  const store = openStore(images.home);
  const put = async (name: string, content: string) => {
    await writeFile(join(images.home, 'made'), content);
    return await store.put({
      name: `image-${name}`, file: join(images.home, 'made'), inputs: digestOf(content),
      madeAt: '2026-01-01T00:00:00.000Z', meta: { packages: ['libc6=2.36-9', 'libstdc++6=1:12.2', 'node=v24.1.0'] },
    });
  };
  const recipes = await readRecipes(root);
  const recipe = recipes[0] ?? assert.fail();
  return { ...images, put, recipes, recipe, workshop: { store } as unknown as Workshop };
}

test('every recipe of the checkout makes a manifest that is one', async (t) => {
  const { put, recipes } = await rig(t);
  for (const recipe of recipes) {
    const manifest = manifestOf(recipe, await put(recipe.name, recipe.name));
    assert.deepEqual(parseManifest(encodeManifest(manifest)), manifest);
    assert.deepEqual(manifest.packages.map(({ purl }) => purl), [
      'pkg:deb/debian/libc6@2.36-9?arch=amd64', 'pkg:deb/debian/libstdc%2B%2B6@1%3A12.2?arch=amd64',
      'pkg:generic/node@v24.1.0',
    ]);
  }
});

test('an image is published once; changed or damaged, it is published again', async (t) => {
  const { put, recipe, workshop, catalogue, manifestPath, tagPath, damage, ...admin } = await rig(t);
  const publish = () => publishImage(workshop, recipe, { ...admin, catalogue });
  await put(recipe.name, 'first');
  await publish();
  const first = await catalogue.find(recipe.name);
  const { ino } = await stat(manifestPath(first.digest));
  await publish();
  assert.equal((await stat(manifestPath(first.digest))).ino, ino, 'nothing was written');
  for (const path of [manifestPath(first.digest), tagPath(recipe.name, 'latest')]) {
    await damage(path, (text) => text.slice(1));
    await publish();
    assert.deepEqual(await catalogue.find(recipe.name), first);
    assert.ok((await readFile(path, 'utf8')).startsWith('{'));
  }
  const { digest } = await put(recipe.name, 'second');
  await publish();
  assert.equal((await catalogue.find(recipe.name)).manifest.fileSystem.digest, digest);
});
