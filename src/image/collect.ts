/**
 * Garbage collection: what nobody can name any more goes. A tag keeps its image, a template the image that it was made
 * from, an artefact of set-up its bytes, and youth keeps what an import or build may be about to name. When anything
 * that could name something cannot be read, nothing is removed.
 */
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { Catalogue } from './catalogue.ts';
import { listOrNone, readAtMost } from '../core/files.ts';
import { openStore } from './store.ts';

/** Begins the names of folders in `images/` that belong to one import each. */
export const IMPORTING = 'importing-';

export interface CollectOptions {
  /** MAYFLY_HOME, absolute. */
  readonly home: string;
  /** ms since 1970. */
  readonly now: number;
  /** Looks, and removes nothing. */
  readonly dryRun: boolean;
  /** What is younger stays, ms; `limits.imageGraceMillis` while others may be at work. */
  readonly graceMillis: number;
}

export interface Collected {
  /** Digests of manifests without a name. */
  readonly manifests: readonly string[];
  readonly blobs: readonly { readonly digest: string; readonly bytes: number }[];
  readonly bytes: number;
}

/** Rejects with E_ARTEFACT_CORRUPT when it is not certain what is in use. */
export async function collectImages(catalogue: Catalogue, options: CollectOptions): Promise<Collected> {
  return await catalogue.locked(async () => {
    const { home, now, dryRun, graceMillis } = options;
    const young = (changedAt: number): boolean => graceMillis > 0 && now - changedAt < graceMillis;
    const { images, problems } = await catalogue.list();
    const artefacts = await openStore(home).referenced();
    const [problem] = problems;
    const reason = problem?.error.message ?? (artefacts === undefined ? 'A record of set-up is damaged.' : undefined);
    if (reason !== undefined || artefacts === undefined) {
      const remedy = 'Remove or repair what the message names (`mayfly image verify`, `npm run setup`), and try again.';
      throw new MayflyError('E_ARTEFACT_CORRUPT', `Nothing was removed. ${reason}`, { remedy });
    }
    const templates = await templateImages(home);
    const kept = new Set<string>(artefacts);
    const manifests: string[] = [];
    for (const { digest, manifest, tags, changedAt } of images) {
      if (tags.length === 0 && !templates.has(manifest.fileSystem.digest) && !young(changedAt)) manifests.push(digest);
      else for (const { digest: used } of [manifest.fileSystem, ...manifest.layers]) kept.add(used);
    }
    const all = await catalogue.blobs.list();
    for (const digest of templates) kept.add(digest);
    const blobs = all.filter(({ digest, changedAt }) => !kept.has(digest) && !young(changedAt));
    if (!dryRun) {
      for (const digest of manifests) await catalogue.dropManifest(digest);
      for (const { digest } of blobs) await catalogue.blobs.remove(digest);
      await removeAbandoned(join(home, 'images'), young);
    }
    const gone = blobs.map(({ digest, bytes }) => ({ digest, bytes }));
    return { manifests, blobs: gone, bytes: gone.reduce((sum, { bytes }) => sum + bytes, 0) };
  });
}

/** Folders of imports that were killed: as old as nobody's work is. */
async function removeAbandoned(folder: string, young: (changedAt: number) => boolean): Promise<void> {
  for (const name of await listOrNone(folder)) {
    if (!name.startsWith(IMPORTING)) continue;
    const path = join(folder, name);
    const found = await stat(path).catch(() => undefined);
    if (found !== undefined && !young(found.mtimeMs)) await rm(path, { recursive: true, force: true });
  }
}

/** Digests of what templates boot from. A seal that does not say is of a template that is built anew. */
async function templateImages(home: string): Promise<ReadonlySet<string>> {
  const digests = new Set<string>();
  for (const name of await listOrNone(join(home, 'templates'))) {
    const path = join(home, 'templates', name, 'template.json');
    const bytes = await readAtMost(path, limits.imageSmallFileBytesMax).catch(() => undefined);
    if (bytes === undefined) continue;
    // Base and layers, wherever they stand: one digest too many keeps a file, one too few takes it from a template.
    for (const [digest] of bytes.toString().matchAll(/sha256:[0-9a-f]{64}/g)) digests.add(digest);
  }
  return digests;
}
