/** An OCI image layout: a folder with `index.json` and blobs by digest, as skopeo, umoci and buildah write it. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../../core/errors.ts';
import { printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { parseDocument } from './documents.ts';
import type { Descriptor } from './documents.ts';
import { collect, forThisPlatform, openManifest } from './source.ts';
import type { OpenedImage } from './source.ts';

/** Rejects with E_IMAGE_SOURCE when there is no layout or no such tag, and as `openManifest` does. */
export async function openLayout(folder: string, tag: string | undefined): Promise<OpenedImage> {
  const file = join(folder, 'index.json');
  const index = parseDocument(await collect(readFile(file), limits.ociDocumentBytesMax, file), 'index.json');
  if (index.kind !== 'index') throw new MayflyError('E_IMAGE_SOURCE', `${file} is not the index of an OCI layout.`);
  const blobs = {
    open: ({ digest, size }: Descriptor) =>
      readFile(join(folder, 'blobs', 'sha256', digest.slice('sha256:'.length)), 0, size),
  };
  return await openManifest(choose(index.manifests, tag, folder), blobs);
}

function choose(manifests: readonly Descriptor[], tag: string | undefined, folder: string): Descriptor {
  const [first] = manifests;
  if (first === undefined) throw new MayflyError('E_IMAGE_SOURCE', `The layout ${folder} has no image.`);
  if (tag === undefined) return manifests.length === 1 ? first : forThisPlatform(untagged(manifests, folder));
  const tagged = manifests.filter((manifest) => manifest.tag === tag);
  if (tagged.length === 0) throw new MayflyError('E_IMAGE_SOURCE', `${folder} has no tag ${tag}; ${tagsOf(manifests)}`);
  return tagged.length === 1 && tagged[0] !== undefined ? tagged[0] : forThisPlatform(tagged);
}

/** Several images without a tag are one for several platforms; with different tags they are different images. */
function untagged(manifests: readonly Descriptor[], folder: string): readonly Descriptor[] {
  if (new Set(manifests.map(({ tag }) => tag)).size === 1) return manifests;
  throw new MayflyError('E_IMAGE_SOURCE', `${folder} has several images; ${tagsOf(manifests)}`, {
    remedy: 'Name one of them, as in `oci:DIR:TAG`.',
  });
}

function tagsOf(manifests: readonly Descriptor[]): string {
  const tags = manifests.map(({ tag }) => tag ?? '(none)').join(', ');
  return `its tags are ${printableLine(tags, 300)}.`;
}

/** Bytes `[start, start + length)` of a regular file; a pipe or device in its place is neither waited for nor read. */
export async function* readFile(path: string, start = 0, length = Number.MAX_SAFE_INTEGER): AsyncGenerator<Buffer> {
  const file = await openFile(path);
  try {
    if (!(await file.stat()).isFile()) throw new MayflyError('E_IMAGE_SOURCE', `${path} is not a regular file.`);
    const end = start + length;
    for (let at = start; at < end; ) {
      const chunk = Buffer.allocUnsafe(Math.min(limits.copyChunkBytes, end - at));
      const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
      if (bytesRead === 0) return;
      at += bytesRead;
      yield chunk.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === 'ENOENT' || code === 'ENOTDIR' ? 'is missing' : `cannot be read (${code})`;
    throw new MayflyError('E_IMAGE_SOURCE', `${path} ${why}.`, { cause });
  }
}
