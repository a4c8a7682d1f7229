/** Images as a test makes them: layers from lists of entries, and the two forms in which an image is kept. */
import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import type { Header } from 'tar-stream';

export type Item = Partial<Header> & { readonly name: string; readonly text?: string; readonly bytes?: Buffer };

export async function tarOf(items: readonly Item[]): Promise<Buffer> {
  const archive = pack();
  for (const { text = '', bytes = Buffer.from(text), ...header } of items) {
    const plain = (header.type ?? 'file') === 'file';
    if (plain) archive.entry({ mtime: new Date(0), ...header }, bytes);
    else archive.entry({ mtime: new Date(0), ...header, size: 0 }).end(undefined);
  }
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

const sha256 = (bytes: Buffer | string): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

export interface Recipe {
  readonly layers: readonly Buffer[];
  readonly config?: object;
  readonly architecture?: string;
}

function configOf({ layers, config = {}, architecture = 'amd64' }: Recipe): Buffer {
  return Buffer.from(JSON.stringify({ os: 'linux', architecture, config, rootfs: { diff_ids: layers.map(sha256) } }));
}

export interface Blobs {
  /** By digest: configuration and layers. */
  readonly blobs: ReadonlyMap<string, Buffer>;
  readonly manifest: Buffer;
  /** Of the manifest. */
  readonly digest: string;
  readonly layers: readonly string[];
}

export function blobsOf(recipe: Recipe, compress: (bytes: Buffer) => Buffer): Blobs {
  const blobs = new Map<string, Buffer>();
  const store = (bytes: Buffer, mediaType: string): { digest: string; mediaType: string; size: number } => {
    blobs.set(sha256(bytes), bytes);
    return { mediaType, digest: sha256(bytes), size: bytes.length };
  };
  const gzip = 'application/vnd.oci.image.layer.v1.tar+gzip';
  const layers = recipe.layers.map((layer) => store(compress(layer), gzip));
  const config = store(configOf(recipe), 'application/vnd.oci.image.config.v1+json');
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, config, layers }));
  return { blobs, manifest, digest: sha256(manifest), layers: layers.map(({ digest }) => digest) };
}

/** An OCI layout with gzip layers, tagged `one`. */
export async function writeLayout(folder: string, recipe: Recipe): Promise<void> {
  const { blobs, manifest, digest } = blobsOf(recipe, gzipSync);
  const at = join(folder, 'blobs', 'sha256');
  await mkdir(at, { recursive: true });
  for (const [name, bytes] of [...blobs, [digest, manifest] as const]) await writeFile(join(at, name.slice(7)), bytes);
  const annotations = { 'org.opencontainers.image.ref.name': 'one' };
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifests = [{ mediaType, digest, size: manifest.length, annotations }];
  await writeFile(join(folder, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
}

/** What `docker save` writes. */
export async function writeArchive(file: string, recipe: Recipe): Promise<void> {
  const names = recipe.layers.map((_, index) => `${index}/layer.tar`);
  const list = JSON.stringify([{ Config: 'config.json', RepoTags: ['test:one'], Layers: names }]);
  const outer = pack();
  recipe.layers.forEach((layer, index) => void outer.entry({ name: names[index] ?? '' }, layer));
  outer.entry({ name: 'config.json' }, configOf(recipe));
  outer.entry({ name: 'manifest.json' }, list);
  outer.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of outer) chunks.push(chunk as Buffer);
  await writeFile(file, Buffer.concat(chunks));
}
