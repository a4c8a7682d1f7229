/**
 * The snapshots of one home: what there is, how long it stays, and its end. `snapshots/RUN/` is one, `RUN.half` one
 * that was being written when its process died, `bases/KEY` the memory of a template that snapshots refer to.
 */
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { listOrNone, readAtMost, writeDurably } from '../core/files.ts';
import { isRunId } from '../core/ids.ts';
import { digestOf, isObject } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { parseManifest } from './manifest.ts';
import type { SnapshotHold, SnapshotManifest } from './manifest.ts';

export interface StoredSnapshot {
  readonly manifest: SnapshotManifest;
  /** Digest of the manifest: as the evidence has it. */
  readonly digest: string;
  readonly folder: string;
  readonly hold: SnapshotHold;
  /** On the disk. */
  readonly bytes: number;
}

const NO_HOLD: SnapshotHold = Object.freeze({ held: false, because: '' });
/** A snapshot takes a second: whoever began one this long ago is not writing any more. */
const HALF_MILLIS_MAX = 3_600_000;

/** Oldest first; what is no snapshot is left out. */
export async function listSnapshots(home: string): Promise<StoredSnapshot[]> {
  const folder = join(home, 'forensics', 'snapshots');
  const found: StoredSnapshot[] = [];
  for (const name of (await listOrNone(folder)).slice(0, limits.snapshotsMax)) {
    if (!isRunId(name)) continue;
    const snapshot = await load(join(folder, name));
    if (snapshot !== undefined) found.push(snapshot);
  }
  return found;
}

/** Rejects with E_FORENSICS_UNKNOWN. */
export async function findSnapshot(home: string, runId: string): Promise<StoredSnapshot> {
  const snapshot = isRunId(runId) ? await load(join(home, 'forensics', 'snapshots', runId)) : undefined;
  if (snapshot === undefined) throw new MayflyError('E_FORENSICS_UNKNOWN', `there is no snapshot of ${runId}`);
  return snapshot;
}

async function load(folder: string): Promise<StoredSnapshot | undefined> {
  const bytes = await readAtMost(join(folder, 'manifest.json'), limits.snapshotManifestBytesMax).catch(() => undefined);
  const manifest = bytes === undefined ? undefined : parseManifest(bytes);
  if (bytes === undefined || manifest === undefined) return undefined;
  return { manifest, digest: digestOf(bytes), folder, hold: await holdOf(folder), bytes: await sizeOf(folder) };
}

async function holdOf(folder: string): Promise<SnapshotHold> {
  const path = join(folder, 'hold.json');
  const bytes = await readAtMost(path, limits.snapshotManifestBytesMax).catch((thrown: NodeJS.ErrnoException) => {
    return thrown.code === 'ENOENT' ? undefined : Buffer.alloc(0);
  });
  if (bytes === undefined) return NO_HOLD;
  try {
    const found: unknown = JSON.parse(bytes.toString('utf8'));
    if (isObject(found) && typeof found['because'] === 'string') return { held: true, because: found['because'] };
  } catch {
    // What cannot be read may be a hold: it holds.
  }
  return { held: true, because: 'its hold cannot be read' };
}

/** Keeps a snapshot beyond its time, until the hold is lifted. */
export async function hold(snapshot: StoredSnapshot, because: string): Promise<void> {
  await writeDurably(join(snapshot.folder, 'hold.json'), JSON.stringify({ because }), 0o600);
}

export async function liftHold(snapshot: StoredSnapshot): Promise<void> {
  await rm(join(snapshot.folder, 'hold.json'), { force: true });
}

/** Rejects with E_FORENSICS_HELD. */
export async function removeSnapshot(snapshot: StoredSnapshot): Promise<void> {
  const { hold: { held, because }, manifest, folder } = snapshot;
  if (held) throw new MayflyError('E_FORENSICS_HELD', `${manifest.runId} is held: ${because}`);
  await rm(folder, { recursive: true, force: true });
}

export interface Purged {
  readonly removed: readonly string[];
  /** Expired, and kept by a hold. */
  readonly held: readonly string[];
  readonly bytes: number;
}

/** Ends what has expired, what was never finished, and memory of templates that no snapshot refers to. */
export async function purgeSnapshots(home: string, nowMillis: number): Promise<Purged> {
  const root = join(home, 'forensics');
  const [removed, held]: [string[], string[]] = [[], []];
  let bytes = 0;
  for (const name of await listOrNone(join(root, 'snapshots'))) {
    const path = join(root, 'snapshots', name);
    if (!name.endsWith('.half') || nowMillis - (await stat(path)).mtimeMs < HALF_MILLIS_MAX) continue;
    bytes += await sizeOf(path);
    await rm(path, { recursive: true, force: true });
    removed.push(name);
  }
  const needed = new Set<string>();
  for (const snapshot of await listSnapshots(home)) {
    const { manifest } = snapshot;
    const expired = Date.parse(manifest.expiresAt) <= nowMillis;
    if (expired && !snapshot.hold.held) {
      bytes += snapshot.bytes;
      await removeSnapshot(snapshot);
      removed.push(manifest.runId);
      continue;
    }
    if (expired) held.push(manifest.runId);
    needed.add(manifest.template);
  }
  for (const name of await listOrNone(join(root, 'bases'))) {
    const path = join(root, 'bases', name);
    const { mtimeMs, size } = await stat(path);
    if (needed.has(name) || nowMillis - mtimeMs < HALF_MILLIS_MAX) continue;
    bytes += size;
    await rm(path, { force: true });
    removed.push(`memory of template ${name}`);
  }
  return { removed, held, bytes };
}

/** All snapshots and bases of a home, bytes. */
export async function usedBytes(home: string): Promise<number> {
  return await sizeOf(join(home, 'forensics'));
}

async function sizeOf(folder: string): Promise<number> {
  let bytes = 0;
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    if (entry.isFile()) bytes += await stat(join(entry.parentPath, entry.name)).then(({ size }) => size, () => 0);
  }
  return bytes;
}
