/** A repository of its own for each test, with a key that is always the same, and an image or two. */
import { createPrivateKey, createPublicKey, sign } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { createDisk } from '../../../src/core/disk.ts';
import { openAdmin } from '../../../src/image/admin.ts';
import type { ImageAdmin } from '../../../src/image/admin.ts';
import { keyIdOf } from '../../../src/image/envelope.ts';
import type { Envelope, Signer } from '../../../src/image/envelope.ts';
import type { ImageManifest } from '../../../src/image/manifest.ts';
import type { TransferWatch } from '../../../src/image/layout.ts';
import { sampleManifest } from './manifests.ts';

const NOW = Date.parse('2026-11-24T12:00:00.000Z');

export interface ImageRig extends ImageAdmin {
  readonly home: string;
  /** Publishes an image whose base has this content, tagged `NAME:latest` unless told otherwise. */
  make(content: string, different?: Partial<ImageManifest>, tag?: string): Promise<Envelope>;
  /** Overwrites a read-only file. */
  damage(path: string, change: (text: string) => string): Promise<void>;
  manifestPath(digest: string): string;
  tagPath(name: string, tag: string): string;
}

export async function imageRig(t: TestContext, seed = 1): Promise<ImageRig> {
  const home = await mkdtemp(join(tmpdir(), 'mayfly-images-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const random = { bytes: (size: number) => Buffer.alloc(size, seed) };
  const admin = openAdmin({ home, random, disk: createDisk(), now: () => NOW, process: 'test' });
  return {
    ...admin,
    home,
    async make(content, different = {}, tag) {
      const file = join(home, 'incoming');
      await writeFile(file, content);
      const fileSystem = await admin.catalogue.addFileSystem(file, 'erofs');
      const manifest = sampleManifest({ fileSystem, ...different });
      return await admin.catalogue.publish(manifest, tag ?? `${manifest.name}:latest`);
    },
    async damage(path, change) {
      const text = await readFile(path, 'utf8');
      await chmod(path, 0o644);
      await writeFile(path, change(text));
    },
    manifestPath: (digest) => join(home, 'images', 'manifests', `${digest.slice('sha256:'.length)}.json`),
    tagPath: (name, tag) => join(home, 'images', 'tags', name, `${tag}.json`),
  };
}

/** The key of somebody else. */
export function stranger(seed = 99): Signer & { readonly pem: Buffer } {
  const prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
  const key = createPrivateKey({ key: Buffer.concat([prefix, Buffer.alloc(32, seed)]), format: 'der', type: 'pkcs8' });
  const open = createPublicKey(key);
  return {
    keyId: keyIdOf(open),
    pem: Buffer.from(open.export({ type: 'spki', format: 'pem' })),
    sign: (message) => sign(null, message, key),
  };
}

export const silent: TransferWatch = { signal: new AbortController().signal, passed: () => {}, total: () => {} };
