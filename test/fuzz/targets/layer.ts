/** Layers of strangers' images: refused with a code, or an index in which every path has a folder to be in. */
import assert from 'node:assert/strict';
import { MayflyError } from '../../../src/core/errors.ts';
import { digestOf } from '../../../src/core/json.ts';
import { readLayer } from '../../../src/image/oci/layer.ts';
import { planImage } from '../../../src/image/oci/plan.ts';
import { lookUp, Tree } from '../../../src/image/oci/tree.ts';
import { tarOf } from '../../unit/image/oci/archive.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const seed = await tarOf([
  { name: './a/', type: 'directory' },
  { name: 'a/file', text: 'text' },
  { name: 'a/hard', type: 'link', linkname: 'a/file' },
  { name: 'b', type: 'symlink', linkname: 'a' },
  { name: 'a/.wh.gone' },
  { name: 'c/.wh..wh..opq' },
  { name: `${'long/'.repeat(40)}name`, text: 'x' },
]);

export const layer: FuzzTarget = {
  smokeIterations: 1_500,
  make: (random) => (random.chance(95) ? mutate(random, seed, 6) : seed),
  async check(input) {
    const tree = new Tree(2);
    const signal = new AbortController().signal;
    const given = {
      name: 'layer',
      digest: undefined,
      size: input.length,
      diffId: digestOf(input),
      open: async function* () {
        yield input;
      },
    };
    try {
      for (let index = 0; index < 2; index++) {
        await readLayer(given, { bytesLeft: 1 << 20 }, signal, (item, ordinal) => {
          if (item.kind === 'entry') tree.add(item.entry, ordinal);
          else if (item.kind === 'whiteout') tree.whiteout(item.path);
          else if (item.kind === 'opaque') tree.opaque(item.path);
        });
        tree.endLayer();
      }
      planImage(tree.nodes);
    } catch (thrown) {
      if (thrown instanceof MayflyError) return;
      throw thrown;
    }
    for (const path of tree.nodes.keys()) {
      assert.ok(!path.startsWith('/') && !path.split('/').includes('..'), `${path} leaves the image`);
      const slash = path.lastIndexOf('/');
      if (slash !== -1) assert.equal(tree.nodes.get(path.slice(0, slash))?.kind, 'folder', `${path} is in no folder`);
      lookUp(tree.nodes, `/${path}`);
    }
  },
};
