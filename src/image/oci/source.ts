/**
 * What every place that images come from has in common: from its first document, through indexes, to the one manifest
 * for this platform, and from there to configuration and layers. Every document is checked against its digest.
 */
import { MayflyError } from '../../core/errors.ts';
import { digestOf, printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { corrupt, parseConfig, parseDocument } from './documents.ts';
import type { Descriptor, Document, ImageConfig } from './documents.ts';
import type { Layer } from './layer.ts';

export interface OpenedImage {
  /** Of its manifest, or of its configuration where there is no manifest: what names this image and no other. */
  readonly digest: string;
  readonly config: ImageConfig;
  /** The lowest first. */
  readonly layers: readonly Layer[];
}

/** Bytes that a digest names. */
export interface Blobs {
  /** At most `size` bytes, unchecked. */
  open(descriptor: Descriptor): AsyncIterable<Buffer>;
}

const PLATFORM = 'linux/amd64';

/**
 * Follows `from` to an image. Rejects with E_IMAGE_PLATFORM, E_IMAGE_CORRUPT, E_IMAGE_UNSUPPORTED or as `blobs` does.
 */
export async function openManifest(from: Descriptor, blobs: Blobs): Promise<OpenedImage> {
  let descriptor = from;
  let document: Document = await readDocument(descriptor, blobs);
  for (let depth = 0; document.kind === 'index'; depth += 1) {
    if (depth >= limits.ociIndexDepthMax) throw corrupt(descriptor.digest, 'its indexes lead to more indexes');
    descriptor = forThisPlatform(document.manifests);
    document = await readDocument(descriptor, blobs);
  }
  const config = parseConfig(await readBlob(document.config, blobs));
  requirePlatform(config);
  const { layers } = document;
  if (layers.length !== config.diffIds.length) {
    throw corrupt(descriptor.digest, `it has ${layers.length} layers, its configuration ${config.diffIds.length}`);
  }
  return {
    digest: descriptor.digest,
    config,
    layers: layers.map((layer, index) => ({
      name: `layer ${index + 1} of ${layers.length}`,
      digest: requireTar(layer).digest,
      size: layer.size,
      diffId: config.diffIds[index] ?? '',
      open: () => blobs.open(layer),
    })),
  };
}

/** The one for Linux on x86-64; attestations and other company have other platforms or say nothing. */
export function forThisPlatform(manifests: readonly Descriptor[]): Descriptor {
  const unnamed = manifests.filter(({ platform }) => platform === undefined);
  const found =
    manifests.find(({ platform }) => platform === PLATFORM) ?? (unnamed.length === 1 ? unnamed[0] : undefined);
  if (found !== undefined) return found;
  const there = manifests.map(({ platform }) => platform ?? 'unnamed').join(', ');
  throw new MayflyError(
    'E_IMAGE_PLATFORM',
    `There is no image for ${PLATFORM}; there are: ${printableLine(there, 300)}.`,
  );
}

export function requirePlatform({ platform }: ImageConfig): void {
  if (platform === PLATFORM) return;
  throw new MayflyError('E_IMAGE_PLATFORM', `The image is for ${printableLine(platform, 100)}, not for ${PLATFORM}.`);
}

const TAR = /^application\/vnd\.(oci\.image\.layer\.v1\.tar|docker\.image\.rootfs\.diff\.tar)([.+](gzip|zstd))?$/;

function requireTar(layer: Descriptor): Descriptor {
  if (TAR.test(layer.mediaType)) return layer;
  const type = printableLine(layer.mediaType, 100);
  throw new MayflyError('E_IMAGE_UNSUPPORTED', `A layer is of the kind ${type}, which is no archive of files.`);
}

async function readDocument(descriptor: Descriptor, blobs: Blobs): Promise<Document> {
  return parseDocument(await readBlob(descriptor, blobs), descriptor.digest);
}

async function readBlob(descriptor: Descriptor, blobs: Blobs): Promise<Buffer> {
  const { digest, size } = descriptor;
  const max = limits.ociDocumentBytesMax;
  if (size > max) throw new MayflyError('E_IMAGE_TOO_LARGE', `${digest} is a document of ${size} bytes, over ${max}.`);
  const bytes = await collect(blobs.open(descriptor), size, digest);
  if (digestOf(bytes) !== digest) throw corrupt(digest, `what is stored under it is ${digestOf(bytes)}`);
  return bytes;
}

/** All of a small stream. Rejects with E_IMAGE_CORRUPT when it has more than `bytesMax` bytes. */
export async function collect(
  stream: AsyncIterable<Buffer | Uint8Array>,
  bytesMax: number,
  what: string,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw corrupt(what, `it has more than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
