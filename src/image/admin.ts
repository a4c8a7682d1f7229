/** Everything that an operator does with images, behind one door: the command line holds no logic. */
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
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

export interface AdminOptions {
  /** MAYFLY_HOME, absolute. */
  readonly home: string;
  readonly random: Random;
  readonly disk: Disk;
  /** ms since 1970. */
  readonly now: () => number;
  /** Tells this process from others at the same time. */
  readonly process: string;
}

export interface ImageAdmin {
  readonly catalogue: Catalogue;
  readonly keys: Keys;
  /** Removes what nobody can name any more; `graceMillis` 0 only while nothing else is running. */
  collect(options: { readonly dryRun: boolean; readonly graceMillis: number }): Promise<Collected>;
  /** To a new folder. */
  export(reference: string, folder: string, watch: TransferWatch): Promise<Envelope>;
  /** A folder that `export` has written, on this machine or another. */
  isExported(folder: string): Promise<boolean>;
  /** Stores what was exported and tags it, `NAME:latest` unless another tag is given. */
  import(folder: string, watch: TransferWatch, options: ImportOptions): Promise<Envelope>;
}

export interface ImportOptions extends TrustPolicy, TagPolicy {
  readonly tag?: string;
}

export function openAdmin({ home, random, disk, now, process }: AdminOptions): ImageAdmin {
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
    async import(folder, watch, { tag, ...policy }) {
      const scratch = join(home, 'images', `${IMPORTING}${process}`);
      const envelope = await importLayout(catalogue, folder, scratch, watch, policy);
      await catalogue.tag(envelope.digest, tag ?? `${envelope.manifest.name}:latest`, policy);
      return envelope;
    },
  };
}
