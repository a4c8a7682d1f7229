/**
 * Images on their way between machines: an OCI image layout whose configuration is the Mayfly manifest, byte for byte,
 * and whose layers are its file systems. Any registry or copier of OCI artefacts carries it; the signatures travel as
 * an annotation. What comes back has the same digest, or does not come back.
 *
 * A layout may come from a stranger: names are digests and nothing else, links are not followed, a size that was
 * declared is the most that is read, and nothing is copied before the manifest is believed.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, open, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { canonicalJson, digestOf, parseStrict } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Catalogue, TrustPolicy } from './catalogue.ts';
import { parseSignatures } from './envelope.ts';
import type { Envelope } from './envelope.ts';
import { writeDurably } from '../core/files.ts';
import { encodeManifest, isDigest, parseManifest } from './manifest.ts';
import type { ImageFileSystem } from './manifest.ts';

export interface TransferWatch {
  readonly signal: AbortSignal;
  /** Bytes of file systems that have been dealt with since the last call. */
  readonly passed: (bytes: number) => void;
  /** Called once, before the first byte: how many there will be. */
  readonly total: (bytes: number) => void;
}

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const ARTEFACT = 'application/vnd.mayfly.image.v1';
const CONFIG = 'application/vnd.mayfly.image.manifest.v1+json';
const SIGNATURES = 'dev.mayfly.image.signatures';
const REFERENCE = 'org.opencontainers.image.ref.name';

/** Writes a new folder. Rejects with E_USAGE when there is something already, and with E_ARTEFACT_CORRUPT. */
export async function exportLayout(
  catalogue: Catalogue,
  envelope: Envelope,
  folder: string,
  watch: TransferWatch,
): Promise<void> {
  const { manifest, signatures } = envelope;
  const files = [manifest.fileSystem, ...manifest.layers];
  await mkdir(folder).catch((cause: NodeJS.ErrnoException) => {
    const problem = cause.code === 'EEXIST' ? 'is there already' : `cannot be made: ${cause.message}`;
    const remedy = 'Name a folder that does not exist yet.';
    throw new MayflyError('E_USAGE', `${folder} ${problem}`, { cause, remedy });
  });
  try {
    const blobs = join(folder, 'blobs', 'sha256');
    await mkdir(blobs, { recursive: true });
    watch.total(files.reduce((sum, { bytes }) => sum + bytes, 0));
    for (const { digest, bytes } of files) {
      const copied = await copyBlob(catalogue.blobs.path(digest), join(blobs, hexOf(digest)), bytes, watch);
      if (copied === digest) continue;
      throw new MayflyError('E_ARTEFACT_CORRUPT', `${catalogue.blobs.path(digest)} is not ${digest} any more.`);
    }
    const config = encodeManifest(manifest);
    await writeDurably(join(blobs, hexOf(envelope.digest)), config);
    const document = Buffer.from(canonicalJson({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      artifactType: ARTEFACT,
      config: { mediaType: CONFIG, digest: envelope.digest, size: config.length },
      layers: files.map(descriptorOf),
      annotations: { [SIGNATURES]: canonicalJson(signatures) },
    }));
    await writeDurably(join(blobs, hexOf(digestOf(document))), document);
    const entry = {
      mediaType: OCI_MANIFEST, artifactType: ARTEFACT, digest: digestOf(document), size: document.length,
      annotations: { [REFERENCE]: manifest.name },
    };
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [entry] };
    await writeDurably(join(folder, 'index.json'), canonicalJson(index));
    // Last: a layout without it is none.
    await writeDurably(join(folder, 'oci-layout'), canonicalJson({ imageLayoutVersion: '1.0.0' }));
  } catch (thrown) {
    await rm(folder, { recursive: true, force: true });
    throw thrown;
  }
}

/** The folder is a layout that Mayfly has exported, whatever is wrong with it otherwise. */
export async function isMayflyLayout(folder: string): Promise<boolean> {
  try {
    return oneEntry(await readDocument(join(folder, 'index.json')))['artifactType'] === ARTEFACT;
  } catch {
    return false;
  }
}

/** Stores the image of a layout. Rejects with E_IMAGE_MANIFEST, E_IMAGE_UNSIGNED, E_IMAGE_SIGNATURE, E_INTERRUPTED. */
export async function importLayout(
  catalogue: Catalogue,
  folder: string,
  scratch: string,
  watch: TransferWatch,
  policy: TrustPolicy = {},
): Promise<Envelope> {
  const envelope = await readLayout(folder);
  await catalogue.requireTrust(envelope, policy);
  const files = [envelope.manifest.fileSystem, ...envelope.manifest.layers];
  watch.total(files.reduce((sum, { bytes }) => sum + bytes, 0));
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true, mode: 0o700 });
  try {
    for (const blob of files) {
      if (await catalogue.blobs.intact(blob, 'quick')) {
        watch.passed(blob.bytes);
        continue;
      }
      const file = join(scratch, 'file-system');
      const copied = await copyBlob(blobPath(folder, blob.digest), file, blob.bytes, watch);
      if (copied !== blob.digest) throw refused(`a file system is ${copied}, not ${blob.digest}`);
      await catalogue.blobs.put(file);
    }
    await catalogue.admit(envelope, policy);
    return envelope;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function readLayout(folder: string): Promise<Envelope> {
  const entry = oneEntry(await readDocument(join(folder, 'index.json')));
  if (entry['artifactType'] !== ARTEFACT) throw refused('it is not an image that Mayfly has exported');
  const document = await readDocument(blobPath(folder, entry['digest']), entry['digest']);
  const config = object(document['config']);
  if (config['mediaType'] !== CONFIG) throw refused('its configuration is of another kind');
  const digest = config['digest'];
  const manifest = parseManifest(await readBytes(blobPath(folder, digest), digest));
  const files = [manifest.fileSystem, ...manifest.layers];
  const layers = Array.isArray(document['layers']) ? document['layers'] : [];
  const expected = files.map(descriptorOf);
  if (canonicalJson(layers) !== canonicalJson(expected)) throw refused('its layers are not those of its manifest');
  const text = object(document['annotations'])[SIGNATURES];
  if (typeof text !== 'string') throw refused('its list of signatures is missing');
  const parsed = parseStrict(Buffer.from(text), BOUNDS);
  if (!parsed.ok) throw refused('its list of signatures');
  return { digest: String(digest), manifest, signatures: parseSignatures(parsed.value) };
}

const BOUNDS = { bytesMax: limits.imageManifestBytesMax, depthMax: limits.imageManifestDepthMax };

function descriptorOf({ type, digest, bytes }: ImageFileSystem): object {
  return { mediaType: `application/vnd.mayfly.image.filesystem.v1.${type}`, digest, size: bytes };
}

function hexOf(digest: string): string {
  return digest.slice('sha256:'.length);
}

function blobPath(folder: string, digest: unknown): string {
  if (typeof digest !== 'string' || !isDigest(digest)) throw refused('something in it has no digest');
  return join(folder, 'blobs', 'sha256', hexOf(digest));
}

function oneEntry(index: { readonly [name: string]: unknown }): { readonly [name: string]: unknown } {
  const entries = index['manifests'];
  if (!Array.isArray(entries) || entries.length !== 1) throw refused('its index does not name exactly one image');
  return object(entries[0]);
}

async function readDocument(path: string, digest?: unknown): Promise<{ readonly [name: string]: unknown }> {
  const parsed = parseStrict(await readBytes(path, digest), BOUNDS);
  if (!parsed.ok) throw refused(`${path} is not JSON within bounds: ${parsed.problem.kind}`);
  return object(parsed.value);
}

function object(value: unknown): { readonly [name: string]: unknown } {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refused('an object is something else');
  return value as { readonly [name: string]: unknown };
}

async function readBytes(path: string, digest?: unknown): Promise<Buffer> {
  const file = await openStrange(path);
  try {
    const { size } = await file.stat();
    if (size > BOUNDS.bytesMax) throw refused(`${path} has ${size} bytes`);
    const bytes = Buffer.alloc(size);
    const { bytesRead } = await file.read(bytes, 0, size, 0);
    const found = bytes.subarray(0, bytesRead);
    if (digest !== undefined && digestOf(found) !== digest) throw refused(`${path} is ${digestOf(found)}`);
    return found;
  } finally {
    await file.close();
  }
}

/** A regular file: a link could lead anywhere on this machine, and a pipe would never end. */
async function openStrange(path: string): Promise<FileHandle> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(path, flags).catch((cause: unknown) => {
    throw refused(`${path} cannot be read: ${(cause as Error).message}`, cause);
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw refused(`${path} is not a file`);
}

/** Copies exactly `bytes` bytes and resolves to the digest of what was copied; more or less is refused. */
async function copyBlob(from: string, to: string, bytes: number, watch: TransferWatch): Promise<string> {
  const source = await openStrange(from);
  try {
    const { size } = await source.stat();
    if (size !== bytes) throw refused(`${from} has ${size} bytes, not ${bytes}`);
    const target = await open(to, 'wx', 0o644);
    try {
      const hash = createHash('sha256');
      const chunk = Buffer.alloc(limits.copyChunkBytes);
      for (let at = 0; at < bytes;) {
        if (watch.signal.aborted) throw new MayflyError('E_INTERRUPTED', 'Interrupted while copying an image.');
        const { bytesRead } = await source.read(chunk, 0, Math.min(chunk.length, bytes - at), at);
        if (bytesRead === 0) throw refused(`${from} was cut off while it was read`);
        hash.update(chunk.subarray(0, bytesRead));
        await target.writeFile(chunk.subarray(0, bytesRead));
        at += bytesRead;
        watch.passed(bytesRead);
      }
      await target.sync();
      return `sha256:${hash.digest('hex')}`;
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

function refused(problem: string, cause?: unknown): MayflyError {
  return new MayflyError('E_IMAGE_MANIFEST', `The image layout is refused: ${problem}.`, { cause });
}
