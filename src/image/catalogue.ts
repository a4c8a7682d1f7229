/**
 * The images of this machine: signed manifests by digest, and tags, which are names that a trusted key has given.
 *
 *   MAYFLY_HOME/images/manifests/HEX.json      manifest and signatures
 *   MAYFLY_HOME/images/tags/NAME/TAG.json      what NAME:TAG means, signed
 *
 * Reading takes no lock: every file is replaced as a whole. Whoever changes something holds `images/lock`. Nothing is
 * handed out before tag, manifest, signature and bytes have all been checked.
 */
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { openBlobs } from './blobs.ts';
import type { Blobs } from './blobs.ts';
import {
  addSignature, encodeEnvelope, encodeTag, parseEnvelope, parseReference, parseTag, sealManifest, trustOf,
} from './envelope.ts';
import type { Envelope, Trust } from './envelope.ts';
import { listOrNone, makeFolder, readAtMost, writeDurably } from '../core/files.ts';
import type { Keys } from './keys.ts';
import type { ImageFileSystem, ImageManifest } from './manifest.ts';

export interface CatalogueOptions {
  /** MAYFLY_HOME, absolute. */
  readonly home: string;
  readonly keys: Keys;
  /** For the lock. */
  readonly disk: Pick<Disk, 'lock'>;
}

export interface TrustPolicy {
  /** Accepts what no trusted key has signed; never what was changed after a trusted key has signed it. */
  readonly allowUnsigned?: boolean;
}

export interface TagPolicy {
  /** Lets a tag move to an image that is older than the one it names. */
  readonly allowDowngrade?: boolean;
}

export interface CatalogueImage extends Envelope {
  readonly trust: Trust;
  /** Sorted, `name:tag`. */
  readonly tags: readonly string[];
  /** ms since 1970 of the last change: new signatures, or its arrival. */
  readonly changedAt: number;
}

/** Something on the disk that cannot be believed, and what it is called there. */
export interface CatalogueProblem {
  readonly what: string;
  readonly error: MayflyError;
}

export interface Listing {
  /** Sorted by name and digest. */
  readonly images: readonly CatalogueImage[];
  readonly problems: readonly CatalogueProblem[];
}

export interface Catalogue {
  readonly blobs: Blobs;
  /** Manifests and tags with their trust; no file system is read. */
  list(): Promise<Listing>;
  /**
   * An image by `name`, `name:tag` or digest, its manifest believed. Rejects with E_IMAGE_UNKNOWN, E_SETUP_MISSING when
   * there is no image at all, E_IMAGE_UNSIGNED, E_IMAGE_SIGNATURE, E_IMAGE_MANIFEST.
   */
  find(reference: string, policy?: TrustPolicy): Promise<Envelope>;
  /** Rejects with E_IMAGE_UNSIGNED or E_IMAGE_SIGNATURE unless the policy lets it be used. */
  requireTrust(image: Envelope, policy: TrustPolicy): Promise<void>;
  /** Rejects with E_ARTEFACT_CORRUPT unless every file system of the image is what its digest says. */
  requireIntact(image: Envelope, depth: 'quick' | 'full', passed?: (bytes: number) => void): Promise<void>;
  /** Moves a finished file of the same disk into the store. It stays only when a manifest names it soon. */
  addFileSystem(file: string, type: ImageFileSystem['type']): Promise<ImageFileSystem>;
  /** Signs and stores a manifest whose file systems are in the store; tags it when asked to. */
  publish(manifest: ImageManifest, tag?: string, policy?: TagPolicy): Promise<Envelope>;
  /** Stores somebody else's, with the signatures it came with. Rejects as `find` does. */
  admit(envelope: Envelope, policy?: TrustPolicy): Promise<void>;
  /** Rejects with E_IMAGE_DOWNGRADE, and as `find` does. */
  tag(reference: string, tag: string, policy?: TagPolicy & TrustPolicy): Promise<Envelope>;
  /** False when there was none. Rejects with E_USAGE for what is no tag. */
  untag(tag: string): Promise<boolean>;
  /** Manifest and all its tags; the bytes stay until they are collected. Resolves to what is gone. */
  remove(reference: string): Promise<{ readonly digest: string; readonly tags: readonly string[] }>;
  /** Adds this machine's signature to an image that is here. */
  sign(reference: string): Promise<Envelope>;
  /** Runs `work` while nobody else changes the repository. */
  locked<T>(work: () => Promise<T>): Promise<T>;
  /** Deletes one manifest; for the collector, which holds the lock. */
  dropManifest(digest: string): Promise<void>;
}

export function openCatalogue({ home, keys, disk }: CatalogueOptions): Catalogue {
  const root = join(home, 'images');
  const blobs = openBlobs(home);
  const manifestPath = (digest: string): string => join(root, 'manifests', `${digest.slice('sha256:'.length)}.json`);
  const tagPath = (name: string, tag: string): string => join(root, 'tags', name, `${tag}.json`);

  async function locked<T>(work: () => Promise<T>): Promise<T> {
    await makeFolder(root);
    const release = await disk.lock(join(root, 'lock'), limits.imageLockMillisMax);
    try {
      return await work();
    } finally {
      await release();
    }
  }

  async function readEnvelope(digest: string): Promise<Envelope | undefined> {
    const path = manifestPath(digest);
    const bytes = await readOrNone(path, limits.imageManifestBytesMax);
    if (bytes === undefined) return undefined;
    return parseEnvelope(bytes, digest);
  }

  async function readTag(name: string, tag: string): Promise<string | undefined> {
    const bytes = await readOrNone(tagPath(name, tag), limits.imageSmallFileBytesMax);
    if (bytes === undefined) return undefined;
    return parseTag(bytes, name, tag, await keys.trusted()).digest;
  }

  /** Names of the files, whatever is in them. */
  async function tagNames(): Promise<{ readonly name: string; readonly tag: string }[]> {
    const found: { name: string; tag: string }[] = [];
    for (const name of await listOrNone(join(root, 'tags'))) {
      for (const file of await listOrNone(join(root, 'tags', name))) {
        if (file.endsWith('.json')) found.push({ name, tag: file.slice(0, -'.json'.length) });
      }
    }
    if (found.length > limits.imagesMax) throw tooMany('tags', found.length);
    return found;
  }

  async function list(): Promise<Listing> {
    const trusted = await keys.trusted();
    const problems: CatalogueProblem[] = [];
    const attempt = async <T>(what: string, work: () => Promise<T>): Promise<T | undefined> => {
      try {
        return await work();
      } catch (thrown) {
        if (!(thrown instanceof MayflyError)) throw thrown;
        problems.push({ what, error: thrown });
        return undefined;
      }
    };
    const tags = new Map<string, string[]>();
    for (const { name, tag } of await tagNames()) {
      const digest = await attempt(`${name}:${tag}`, () => readTag(name, tag));
      if (digest !== undefined) tags.set(digest, [...(tags.get(digest) ?? []), `${name}:${tag}`]);
    }
    const files = (await listOrNone(join(root, 'manifests'))).filter((file) => /^[0-9a-f]{64}\.json$/.test(file));
    if (files.length > limits.imagesMax) throw tooMany('images', files.length);
    const images: CatalogueImage[] = [];
    for (const file of files) {
      const digest = `sha256:${file.slice(0, -'.json'.length)}`;
      const envelope = await attempt(digest, () => readEnvelope(digest));
      if (envelope === undefined) continue;
      const { mtimeMs } = await stat(manifestPath(digest));
      const trust = trustOf(envelope, trusted);
      images.push({ ...envelope, trust, tags: (tags.get(digest) ?? []).sort(), changedAt: mtimeMs });
      tags.delete(digest);
    }
    for (const [digest, names] of tags) {
      if (files.includes(`${digest.slice('sha256:'.length)}.json`)) continue;
      for (const what of names) problems.push({ what, error: corrupt(`${what} names ${digest}, which is not here.`) });
    }
    images.sort((a, b) => (`${a.manifest.name} ${a.digest}` < `${b.manifest.name} ${b.digest}` ? -1 : 1));
    return { images, problems };
  }

  /** Without a word about trust. */
  async function lookUp(reference: string): Promise<Envelope> {
    const wanted = parseReference(reference);
    if (wanted === undefined) throw await unknown(reference);
    const digest = 'digest' in wanted ? wanted.digest : await readTag(wanted.name, wanted.tag);
    if (digest === undefined) throw await unknown(reference);
    const envelope = await readEnvelope(digest);
    if (envelope !== undefined) return envelope;
    if ('digest' in wanted) throw await unknown(reference);
    throw corrupt(`${reference} names ${digest}, which is not here.`);
  }

  async function unknown(reference: string): Promise<MayflyError> {
    const known = (await tagNames()).map(({ name, tag }) => (tag === 'latest' ? name : `${name}:${tag}`));
    if (known.length === 0) return new MayflyError('E_SETUP_MISSING', 'There is no base image on this machine yet.');
    return new MayflyError('E_IMAGE_UNKNOWN', `There is no image "${reference}"; there are ${known.join(', ')}.`);
  }

  async function requireTrust(envelope: Envelope, { allowUnsigned = false }: TrustPolicy): Promise<void> {
    const trust = trustOf(envelope, await keys.trusted());
    const what = `The image ${envelope.manifest.name} (${envelope.digest})`;
    if (trust.kind === 'signed') return;
    if (trust.kind === 'wrong') throw new MayflyError('E_IMAGE_SIGNATURE', `${what}: not what ${trust.keyId} signed.`);
    if (allowUnsigned) return;
    if (trust.kind === 'unsigned') throw new MayflyError('E_IMAGE_UNSIGNED', `${what} is not signed.`);
    const keyIds = trust.keyIds.join(', ');
    throw new MayflyError('E_IMAGE_UNSIGNED', `${what} is signed by ${keyIds}, which is not trusted here.`);
  }

  async function find(reference: string, policy: TrustPolicy = {}): Promise<Envelope> {
    const envelope = await lookUp(reference);
    await requireTrust(envelope, policy);
    return envelope;
  }

  async function requireIntact(
    { manifest }: Envelope,
    depth: 'quick' | 'full',
    passed?: (bytes: number) => void,
  ): Promise<void> {
    for (const { digest, bytes } of [manifest.fileSystem, ...manifest.layers]) {
      if (await blobs.intact({ digest, bytes }, depth, passed)) continue;
      throw corrupt(`A file system of image ${manifest.name} is not ${digest} any more: ${blobs.path(digest)}`);
    }
  }

  /** Holding the lock. */
  async function writeEnvelope(envelope: Envelope): Promise<void> {
    await makeFolder(join(root, 'manifests'));
    await writeDurably(manifestPath(envelope.digest), encodeEnvelope(envelope));
  }

  /** Holding the lock. */
  async function writeTag(envelope: Envelope, tag: string, { allowDowngrade = false }: TagPolicy): Promise<void> {
    const wanted = requireTag(tag);
    // A tag that cannot be believed says nothing about what is newer: writing it anew repairs it.
    const before = await lookUp(`${wanted.name}:${wanted.tag}`).catch(() => undefined);
    const older = before !== undefined && before.manifest.created > envelope.manifest.created;
    if (older && before.digest !== envelope.digest && !allowDowngrade) {
      const times = `${envelope.manifest.created}, and ${before.digest} is of ${before.manifest.created}`;
      throw new MayflyError('E_IMAGE_DOWNGRADE', `${tag}: ${envelope.digest} was made at ${times}.`);
    }
    await makeFolder(join(root, 'tags', wanted.name));
    const bytes = encodeTag({ ...wanted, digest: envelope.digest }, await keys.own());
    await writeDurably(tagPath(wanted.name, wanted.tag), bytes);
  }

  async function removeTag({ name, tag }: { readonly name: string; readonly tag: string }): Promise<boolean> {
    const there = (await stat(tagPath(name, tag)).catch(() => undefined)) !== undefined;
    await rm(tagPath(name, tag), { force: true });
    return there;
  }

  return Object.freeze({
    blobs,
    list,
    find,
    requireTrust,
    requireIntact,
    locked,
    async addFileSystem(file, type) {
      return { type, ...(await blobs.put(file)) };
    },
    publish: async (manifest, tag, policy = {}) => await locked(async () => {
      const made = sealManifest(manifest);
      await requireIntact(made, 'quick');
      // Built again with the same result: what others have signed about it stays true.
      const before = await readEnvelope(made.digest).catch(() => undefined);
      const envelope = addSignature(before ?? made, await keys.own());
      await writeEnvelope(envelope);
      if (tag !== undefined) await writeTag(envelope, tag, policy);
      return envelope;
    }),
    admit: async (envelope, policy = {}) => await locked(async () => {
      await requireTrust(envelope, policy);
      await requireIntact(envelope, 'quick');
      await writeEnvelope(envelope);
    }),
    tag: async (reference, tag, policy = {}) => await locked(async () => {
      const envelope = await find(reference, policy);
      await writeTag(envelope, tag, policy);
      return envelope;
    }),
    untag: async (tag) => await locked(async () => await removeTag(requireTag(tag))),
    remove: async (reference) => await locked(async () => {
      const wanted = parseReference(reference);
      // Also what is damaged can be removed, by its digest or by its tag.
      const digest = wanted !== undefined && 'digest' in wanted ? wanted.digest : (await lookUp(reference)).digest;
      const there = (await stat(manifestPath(digest)).catch(() => undefined)) !== undefined;
      if (!there) throw await unknown(reference);
      const tags: string[] = [];
      for (const tag of await tagNames()) {
        const meant = await readTag(tag.name, tag.tag).catch(() => undefined);
        if (meant === digest && (await removeTag(tag))) tags.push(`${tag.name}:${tag.tag}`);
      }
      await rm(manifestPath(digest), { force: true });
      return { digest, tags };
    }),
    sign: async (reference) => await locked(async () => {
      const envelope = await lookUp(reference);
      const trust = trustOf(envelope, await keys.trusted());
      if (trust.kind === 'wrong') await requireTrust(envelope, {});
      await requireIntact(envelope, 'quick');
      const signed = addSignature(envelope, await keys.own());
      await writeEnvelope(signed);
      return signed;
    }),
    dropManifest: (digest) => rm(manifestPath(digest), { force: true }),
  } satisfies Catalogue);
}

function requireTag(text: string): { readonly name: string; readonly tag: string } {
  const parsed = parseReference(text);
  if (parsed !== undefined && 'name' in parsed) return parsed;
  const remedy = 'Write it as NAME:TAG, as in node:stable: lower-case letters, digits and hyphens.';
  throw new MayflyError('E_USAGE', `"${text}" is no tag`, { remedy });
}

async function readOrNone(path: string, bytesMax: number): Promise<Buffer | undefined> {
  try {
    return await readAtMost(path, bytesMax);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw corrupt(`${path} cannot be read: ${(cause as Error).message}`, cause);
  }
}

function tooMany(what: string, count: number): MayflyError {
  const remedy = 'Remove some with `mayfly image remove` or `untag`.';
  const message = `${count} ${what} are more than the ${limits.imagesMax} that are allowed`;
  return new MayflyError('E_USAGE', message, { remedy });
}

function corrupt(message: string, cause?: unknown): MayflyError {
  return new MayflyError('E_ARTEFACT_CORRUPT', message, { cause });
}
