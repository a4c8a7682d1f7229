/** The image manifest's parser: refuses with its code, or reads what has exactly this one text. */
import assert from 'node:assert/strict';
import { MayflyError } from '../../../src/core/errors.ts';
import { encodeManifest, parseManifest } from '../../../src/image/manifest.ts';
import type { ImageManifest } from '../../../src/image/manifest.ts';
import { sampleManifest } from '../../unit/image/manifests.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const seeds = [sampleManifest(), sampleManifest({ runtime: null, packages: [] })].map(encodeManifest);

/** Swapped for one another, so that damage gets past the JSON and into the fields. */
const words = ['"node"', '[]', '{}', 'null', '1', '-1', '1e99', '"erofs"', '"\\u0000"', '"*"', '[[]]', 'true', '""'];

export const manifest: FuzzTarget = {
  smokeIterations: 10_000,
  make(random) {
    const seed = random.pick(seeds);
    if (random.chance(50)) return mutate(random, seed, 3);
    const values = [...seed.toString().matchAll(/(?<=[:[,])(?:"[^"]*"|\d+|null|\[\]|\{\})/g)];
    const { index, 0: old } = random.pick(values);
    const text = seed.toString();
    return Buffer.from(text.slice(0, index) + random.pick(words) + text.slice(index + old.length));
  },
  check(input) {
    let parsed: ImageManifest;
    try {
      parsed = parseManifest(input);
    } catch (thrown) {
      if (thrown instanceof MayflyError && thrown.code === 'E_IMAGE_MANIFEST') return;
      throw thrown;
    }
    assert.deepEqual(encodeManifest(parsed), input);
  },
};
