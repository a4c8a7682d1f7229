/** Documents and names of strangers' images: understood within bounds or refused with a code. */
import { MayflyError } from '../../../src/core/errors.ts';
import { parseArchiveList, parseConfig, parseDocument } from '../../../src/image/oci/documents.ts';
import { parseReference } from '../../../src/image/oci/reference.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const digest = `sha256:${'0'.repeat(64)}`;
const blob = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: 10 };
const seeds = [
  JSON.stringify({ schemaVersion: 2, config: blob, layers: [blob] }),
  JSON.stringify({ manifests: [{ ...blob, platform: { os: 'linux', architecture: 'amd64' }, annotations: {} }] }),
  JSON.stringify({
    os: 'linux',
    architecture: 'amd64',
    rootfs: { diff_ids: [digest] },
    config: { Env: ['A=b'], Cmd: ['x'] },
  }),
  JSON.stringify([{ Config: 'config.json', RepoTags: ['a:b'], Layers: ['0/layer.tar'] }]),
  'oci:folder:tag',
  'docker-archive:file:name:tag',
  `docker://host.example:5000/a/b:tag@${digest}`,
].map((text) => Buffer.from(text));

const parsers: readonly ((bytes: Buffer) => unknown)[] = [
  (bytes) => parseDocument(bytes, 'a document'),
  parseConfig,
  parseArchiveList,
  (bytes) => parseReference(bytes.toString('latin1')),
];

export const oci: FuzzTarget = {
  smokeIterations: 10_000,
  make: (random) => mutate(random, random.pick(seeds), 4),
  check(input) {
    for (const parse of parsers) {
      try {
        parse(input);
      } catch (thrown) {
        if (!(thrown instanceof MayflyError) || thrown.code === 'E_INTERNAL') throw thrown;
      }
    }
  },
};
