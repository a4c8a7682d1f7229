/**
 * The bytes behind digests, `MAYFLY_HOME/store/sha256/ab/abcdef…`, read-only. Nothing is used before it is certain
 * that the file is what its name says: its SHA-256 is computed, and believed again while the file is the very one that
 * was read (size, inode, mtime, ctime, kept in `store/seen/`). Writing to a file changes its ctime; nobody can set it.
 */
import { chmod, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { canonicalJson } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import {
  digestFile, fingerprint, listOrNone, makeFolder, readAtMost, syncFolder, withFile, writeDurably,
} from '../core/files.ts';
import type { Fingerprint } from '../core/files.ts';

export interface Blob {
  readonly digest: string;
  readonly bytes: number;
}

export interface StoredBlob extends Blob {
  /** Milliseconds since 1970. */
  readonly changedAt: number;
}

export interface Blobs {
  /** Absolute; there may be nothing. */
  path(digest: string): string;
  /** Moves a finished file of the store's file system to its place. */
  put(file: string): Promise<Blob>;
  /** The bytes are what the digest says. `quick` believes what was found before about the very same file. */
  intact(blob: Blob, depth: 'quick' | 'full', passed?: (bytes: number) => void): Promise<boolean>;
  list(): Promise<StoredBlob[]>;
  remove(digest: string): Promise<void>;
}

export function openBlobs(home: string): Blobs {
  const root = join(home, 'store', 'sha256');
  const seen = join(home, 'store', 'seen');
  const path = (digest: string): string => {
    const hex = digest.slice('sha256:'.length);
    return join(root, hex.slice(0, 2), hex);
  };
  const seenPath = (digest: string): string => join(seen, `${digest.slice('sha256:'.length)}.json`);

  async function wasSeen(digest: string, now: Fingerprint): Promise<boolean> {
    const note = await readAtMost(seenPath(digest), limits.imageSmallFileBytesMax).catch(() => undefined);
    return note !== undefined && note.toString() === canonicalJson(now);
  }

  /** A cache: when it cannot be written, the file is read again the next time. */
  async function note(digest: string, now: Fingerprint): Promise<void> {
    await makeFolder(seen).catch(() => {});
    await writeDurably(seenPath(digest), canonicalJson(now)).catch(() => {});
  }

  return {
    path,
    async put(file) {
      const blob = await digestFile(file);
      const place = path(blob.digest);
      await makeFolder(dirname(place));
      await chmod(file, 0o444);
      await withFile(file, 'r', (handle) => handle.sync());
      await rename(file, place);
      await syncFolder(dirname(place));
      await note(blob.digest, await fingerprint(place));
      return blob;
    },
    async intact(blob, depth, passed) {
      const place = path(blob.digest);
      const before = await fingerprint(place).catch(() => undefined);
      if (before === undefined || before.bytes !== String(blob.bytes)) return false;
      if (depth === 'quick' && (await wasSeen(blob.digest, before))) return true;
      const found = await digestFile(place, passed).catch(() => undefined);
      if (found?.digest !== blob.digest) return false;
      // The fingerprint from before the reading: what was written to meanwhile will not match it.
      await note(blob.digest, before);
      return true;
    },
    async list() {
      const found: StoredBlob[] = [];
      for (const folder of await listOrNone(root)) {
        for (const name of await listOrNone(join(root, folder))) {
          if (!/^[0-9a-f]{64}$/.test(name)) continue;
          const { size, ctimeMs } = await stat(join(root, folder, name));
          found.push({ digest: `sha256:${name}`, bytes: size, changedAt: ctimeMs });
        }
      }
      return found;
    },
    async remove(digest) {
      await rm(path(digest), { force: true });
      await rm(seenPath(digest), { force: true });
    },
  };
}
