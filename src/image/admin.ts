/** Everything that an operator does with images, behind one door: the command line holds no logic. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { MayflyError } from '../core/errors.ts';
import { canonicalJson, printableLine } from '../core/json.ts';
import type { Random } from '../core/random.ts';
import { openCatalogue } from './catalogue.ts';
import type { Catalogue, TagPolicy, TrustPolicy } from './catalogue.ts';
import { collectImages, IMPORTING } from './collect.ts';
import type { Collected } from './collect.ts';
import type { Envelope } from './envelope.ts';
import { openKeys } from './keys.ts';
import type { Keys } from './keys.ts';
import { exportLayout, importLayout, isMayflyLayout } from './layout.ts';
import type { TransferWatch } from './layout.ts';
import { isImageName } from './manifest.ts';
import type { ImageManifest } from './manifest.ts';
import { importImage } from './oci/import.ts';
import type { MergedImage } from './oci/import.ts';
import { parseReference } from './oci/reference.ts';
import type { RegistryAccess } from './oci/registry.ts';

export interface AdminOptions {
  /** MAYFLY_HOME, absolute. */
  readonly home: string;
  readonly random: Random;
  readonly disk: Disk;
  /** ms since 1970. */
  readonly now: () => number;
  /** Tells this process from others at the same time. */
  readonly process: string;
  /** Timers, for whoever pulls from registries. */
  readonly after?: RegistryAccess['after'];
}

export interface ImageAdmin {
  readonly catalogue: Catalogue;
  readonly keys: Keys;
  /** Removes what nobody can name any more; `graceMillis` 0 only while nothing else is running. */
  collect(options: { readonly dryRun: boolean; readonly graceMillis: number }): Promise<Collected>;
  /** To a new folder. */
  export(reference: string, folder: string, watch: TransferWatch): Promise<Envelope>;
  /** Runs `work` with a folder of its own in the file system of the store, and removes it. */
  inScratch<T>(work: (folder: string) => Promise<T>): Promise<T>;
  /** Signs, stores and tags, unless the tag names the same image already, made earlier. */
  publishOnce(manifest: ImageManifest, tag: string): Promise<Published>;
  /** ISO 8601 of now. */
  now(): string;
  /** A folder that `export` has written, on this machine or another. */
  isExported(folder: string): Promise<boolean>;
  /** Stores what was exported and tags it, `NAME:latest` unless another tag is given. */
  import(folder: string, watch: TransferWatch, options: ImportOptions): Promise<Envelope>;
  /**
   * Anybody's OCI image: merges its layers into one file system, which this machine then signs as `NAME:latest`.
   * Rejects with E_IMAGE_SOURCE, _FETCH, _AUTH, _PLATFORM, _CORRUPT, _UNSAFE, _TOO_LARGE, _UNSUPPORTED, E_USAGE and
   * E_INTERRUPTED.
   */
  bring(source: string, options: BringOptions): Promise<BroughtImage>;
}

export interface Published {
  readonly envelope: Envelope;
  readonly unchanged: boolean;
}

export interface BringOptions {
  readonly name: string;
  readonly signal: AbortSignal;
  /** Hears what takes seconds. */
  readonly say: (step: string) => void;
  readonly registry?: Omit<RegistryAccess, 'after'>;
}

export interface BroughtImage {
  readonly envelope: Envelope;
  readonly merged: MergedImage;
}

export interface ImportOptions extends TrustPolicy, TagPolicy {
  readonly tag?: string;
}

export function openAdmin({ home, random, disk, now, process, after }: AdminOptions): ImageAdmin {
  const keys = openKeys(home, random);
  const catalogue = openCatalogue({ home, keys, disk });
  return {
    catalogue,
    keys,
    collect: async (options) => await collectImages(catalogue, { home, now: now(), ...options }),
    async export(reference, folder, watch) {
      const envelope = await catalogue.find(reference, { allowUnsigned: true });
      await exportLayout(catalogue, envelope, folder, watch);
      return envelope;
    },
    isExported: isMayflyLayout,
    async inScratch(work) {
      const folder = join(home, 'images', `${IMPORTING}${process}`);
      await rm(folder, { recursive: true, force: true });
      await mkdir(folder, { recursive: true, mode: 0o700 });
      try {
        return await work(folder);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
    async publishOnce(manifest, tag) {
      const before = await catalogue.find(tag).catch(() => undefined);
      const same = before !== undefined && isSame(before.manifest, manifest);
      if (same) return { envelope: before, unchanged: true };
      return { envelope: await catalogue.publish(manifest, tag), unchanged: false };
    },
    now: () => new Date(now()).toISOString(),
    async bring(source, { name, signal, say, registry }) {
      const scratch = join(home, 'images', `importing-${process}`);
      const described = describe(source, name);
      const access = after === undefined || registry === undefined ? {} : { registry: { ...registry, after } };
      return await importImage(parseReference(source), { scratch, signal, say, ...access }, async (merged) => {
        const { digest, bytes } = await catalogue.blobs.put(merged.file);
        const envelope = await catalogue.publish({
          ...described,
          command: merged.command,
          fileSystem: { type: 'squashfs', digest, bytes },
          inputs: merged.digest,
          created: new Date(now()).toISOString(),
        }, `${name}:latest`);
        return { envelope, merged };
      });
    },
    async import(folder, watch, { tag, ...policy }) {
      const scratch = join(home, 'images', `${IMPORTING}${process}`);
      const envelope = await importLayout(catalogue, folder, scratch, watch, policy);
      await catalogue.tag(envelope.digest, tag ?? `${envelope.manifest.name}:latest`, policy);
      return envelope;
    },
  };
}

/** But for the time at which they were made. */
function isSame(one: ImageManifest, other: ImageManifest): boolean {
  return canonicalJson({ ...one, created: '' }) === canonicalJson({ ...other, created: '' });
}

/** What is true of every image that Mayfly did not make: it runs executables, and nobody has said what it is for. */
function describe(source: string, name: string): Omit<ImageManifest, 'command' | 'fileSystem' | 'inputs' | 'created'> {
  if (!isImageName(name)) throw new MayflyError('E_USAGE', `--as ${printableLine(name, 80)}: not a name for an image`);
  return {
    manifestVersion: 1,
    name,
    description: `imported from ${printableLine(source, 300)}`,
    classes: ['compute'],
    variant: 'standard',
    runtime: null,
    serves: { contentTypes: [], eventTypes: [] },
    policy: { seccomp: 'compute', appArmor: 'compute' },
    kernel: { minimum: '6.1' },
    platform: { os: 'linux', architecture: 'amd64' },
    layers: [],
    packages: [],
    origin: 'import',
  };
}
