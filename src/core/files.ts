/** Files that others rely on: hashed in pieces; written beside their place and renamed, so nobody sees a half. */
import { createHash } from 'node:crypto';
import { link, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { limits } from './limits.ts';

/** What changes when a file is replaced or written to; ctime cannot be set. As text: JSON has no 64-bit integers. */
export interface Fingerprint {
  readonly bytes: string;
  readonly inode: string;
  readonly mtimeNanos: string;
  readonly ctimeNanos: string;
}

export async function fingerprint(path: string): Promise<Fingerprint> {
  const { size, ino, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return { bytes: String(size), inode: String(ino), mtimeNanos: String(mtimeNs), ctimeNanos: String(ctimeNs) };
}

/** `sha256:` and 64 hex digits of a file of any size, and its size in bytes. `passed` hears how many were read. */
export async function digestFile(
  path: string,
  passed: (bytes: number) => void = () => {},
): Promise<{ readonly digest: string; readonly bytes: number }> {
  return await withFile(path, 'r', async (file) => {
    const hash = createHash('sha256');
    const chunk = Buffer.alloc(limits.copyChunkBytes);
    let bytes = 0;
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length, bytes);
      if (bytesRead === 0) break;
      hash.update(chunk.subarray(0, bytesRead));
      bytes += bytesRead;
      passed(bytesRead);
    }
    return { digest: `sha256:${hash.digest('hex')}`, bytes };
  });
}

/** Whole file; rejects when there is none, when it is no regular file, and when it has more than `bytesMax` bytes. */
export async function readAtMost(path: string, bytesMax: number): Promise<Buffer> {
  return await withFile(path, 'r', async (file) => {
    const found = await file.stat();
    if (!found.isFile()) throw new Error(`${path} is not a file`);
    if (found.size > bytesMax) throw new Error(`${path} has ${found.size} bytes, at most ${bytesMax} are allowed`);
    const bytes = Buffer.alloc(found.size);
    const { bytesRead } = await file.read(bytes, 0, found.size, 0);
    return bytes.subarray(0, bytesRead);
  });
}

/** Replaces what is there. One writer at a time. */
export async function writeDurably(path: string, content: Buffer | string, mode = 0o644): Promise<void> {
  const half = `${path}.half`;
  await rm(half, { force: true });
  const file = await open(half, 'wx', mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(half, path);
  await syncFolder(dirname(path));
}

/** Writes a file that is never changed, unless it is there. Of several writers at once one wins, and all resolve. */
export async function writeOnce(path: string, content: Buffer | string, mode = 0o644): Promise<void> {
  const own = `${path}.${process.pid}.${(onceCount += 1)}.half`;
  await writeDurably(own, content, mode);
  try {
    await link(own, path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
  } finally {
    await rm(own, { force: true });
  }
  await syncFolder(dirname(path));
}

let onceCount = 0;

/** Clones' VMMs have their own uids: they may pass through these folders and read these files, and no more. */
export async function makeFolder(path: string, mode = 0o755): Promise<void> {
  await mkdir(path, { recursive: true, mode });
}

export async function listOrNone(path: string): Promise<string[]> {
  return (await readdir(path).catch(() => [])).sort();
}

/** A new file is durable only when its name is. */
export async function syncFolder(path: string): Promise<void> {
  await withFile(path, 'r', (folder) => folder.sync());
}

/** What it creates is its owner's alone. */
export async function withFile<T>(path: string, flags: string, use: (file: FileHandle) => Promise<T>): Promise<T> {
  const file = await open(path, flags, 0o600);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}
