/**
 * The few things that Mayfly's records need from a file system, as a dependency: simulation fails each of them.
 *
 * Every file is its owner's alone (0600, folders 0700), every read has a bound, and removing follows no
 * symbolic link.
 */
import { spawn } from 'node:child_process';
import type { SpawnOptions } from 'node:child_process';
import { lstat, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncFolder, withFile, writeDurably } from './files.ts';
import { limits } from './limits.ts';

export interface Disk {
  /** Whole file. Rejects with ENOENT, and with EFBIG when it is larger than `bytesMax`. */
  read(path: string, bytesMax: number): Promise<Buffer>;
  /** At most the last `bytesMax` bytes and the size of the whole; `size` 0 when there is no such file. */
  tail(path: string, bytesMax: number): Promise<{ readonly size: number; readonly bytes: Buffer }>;
  /** Appends in one write, creating the file. `sync`: on the medium before it resolves. */
  append(path: string, bytes: Buffer, options: { readonly sync: boolean }): Promise<void>;
  /** Whole file, in pieces of at most `limits.copyChunkBytes`. Rejects with ENOENT. */
  chunks(path: string): AsyncIterable<Buffer>;
  /** The whole content at once: a reader sees the old one or the new one. One writer at a time. */
  replace(path: string, bytes: Buffer, options: { readonly sync: boolean }): Promise<void>;
  truncate(path: string, size: number): Promise<void>;
  /** Creates missing parents as well. */
  makeFolder(path: string): Promise<void>;
  /** Sorted names; none when there is no such folder. */
  list(path: string): Promise<string[]>;
  /** Something of any kind is there. */
  exists(path: string): Promise<boolean>;
  /** File or folder with all that is in it; no error when there is none. */
  remove(path: string): Promise<void>;
  /**
   * Exclusive among processes, and given back by the kernel when its holder dies. Resolves to its release; rejects with
   * EAGAIN when another one had it for all of `millisMax`, which counts in whole seconds.
   */
  lock(path: string, millisMax: number): Promise<() => Promise<void>>;
}

export function createDisk(): Disk {
  return {
    read: (path, bytesMax) => withFile(path, 'r', async (file) => {
      const { size } = await file.stat();
      if (size > bytesMax) throw Object.assign(new Error(`${path} has ${size} bytes`), { code: 'EFBIG' });
      return await readAt(file, 0, size);
    }),
    async tail(path, bytesMax) {
      try {
        return await withFile(path, 'r', async (file) => {
          const { size } = await file.stat();
          const start = Math.max(0, size - bytesMax);
          return { size, bytes: await readAt(file, start, size - start) };
        });
      } catch (thrown) {
        if (isMissing(thrown)) return { size: 0, bytes: Buffer.alloc(0) };
        throw thrown;
      }
    },
    append: (path, bytes, { sync }) => withFile(path, 'a', async (file) => {
      const { bytesWritten } = await file.write(bytes);
      if (bytesWritten !== bytes.length) throw Object.assign(new Error(`short write to ${path}`), { code: 'ENOSPC' });
      if (!sync) return;
      await file.datasync();
      if ((await file.stat()).size === bytes.length) await syncFolder(dirname(path));
    }),
    async *chunks(path) {
      const file = await open(path, 'r');
      try {
        for (;;) {
          const { bytesRead, buffer } = await file.read(Buffer.alloc(limits.copyChunkBytes));
          if (bytesRead === 0) return;
          yield buffer.subarray(0, bytesRead);
        }
      } finally {
        await file.close();
      }
    },
    async replace(path, bytes, { sync }) {
      if (sync) return await writeDurably(path, bytes, 0o600);
      await withFile(`${path}.half`, 'w', (file) => file.writeFile(bytes));
      await rename(`${path}.half`, path);
    },
    truncate: (path, size) => withFile(path, 'r+', async (file) => {
      await file.truncate(size);
      await file.datasync();
    }),
    async makeFolder(path) {
      await mkdir(path, { recursive: true, mode: 0o700 });
    },
    async list(path) {
      try {
        return (await readdir(path)).sort();
      } catch (thrown) {
        if (isMissing(thrown)) return [];
        throw thrown;
      }
    },
    async exists(path) {
      try {
        await lstat(path);
        return true;
      } catch (thrown) {
        if (isMissing(thrown)) return false;
        throw thrown;
      }
    },
    remove: (path) => rm(path, { recursive: true, force: true }),
    lock: lockFile,
  };
}

/**
 * flock(1) locks the descriptor that it inherits; the lock belongs to the open file, so it stays with this process when
 * flock exits and ends with its last descriptor, however this process dies. Node has no call for it.
 */
async function lockFile(path: string, millisMax: number): Promise<() => Promise<void>> {
  const file = await open(path, 'a', 0o600);
  const seconds = String(Math.max(1, Math.ceil(millisMax / 1000)));
  try {
    const status = await new Promise<number | null>((resolve, reject) => {
      // Its own session: Ctrl-C on a terminal must not keep an interrupted run from being sealed.
      const options: SpawnOptions = { stdio: ['ignore', 'ignore', 'ignore', file.fd], detached: true };
      const child = spawn('flock', ['-x', '-w', seconds, '3'], options);
      child.once('error', reject).once('exit', resolve);
    });
    if (status !== 0) throw locked(`${path} was locked by another process for ${seconds} s`);
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
  return () => file.close();
}

function locked(message: string): Error {
  return Object.assign(new Error(message), { code: 'EAGAIN' });
}

async function readAt(file: FileHandle, start: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, start + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}

function isMissing(thrown: unknown): boolean {
  return thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT';
}
