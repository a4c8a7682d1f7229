/** Signed manifests and tags as they may come from anywhere: refused with a code, or read as exactly this text. */
import assert from 'node:assert/strict';
import { MayflyError } from '../../../src/core/errors.ts';
import { encodeEnvelope, encodeTag, parseEnvelope, parseTag, sealManifest } from '../../../src/image/envelope.ts';
import { sampleManifest } from '../../unit/image/manifests.ts';
import { stranger } from '../../unit/image/rig.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const signer = stranger();
const signed = encodeEnvelope(sealManifest(sampleManifest(), [signer]));
const tag = encodeTag({ name: 'node', tag: 'latest', digest: `sha256:${'0'.repeat(64)}` }, signer);

function refusedOr<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (thrown) {
    if (thrown instanceof MayflyError) return undefined;
    throw thrown;
  }
}

export const envelope: FuzzTarget = {
  smokeIterations: 6_000,
  make: (random) => mutate(random, random.pick([signed, tag]), 3),
  check(input) {
    const read = refusedOr(() => parseEnvelope(input));
    if (read !== undefined) assert.deepEqual(encodeEnvelope(read), input);
    // No key is trusted: whatever was done to it, a tag of nobody is never believed.
    assert.equal(refusedOr(() => parseTag(input, 'node', 'latest', new Map())), undefined);
  },
};
