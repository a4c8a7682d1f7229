/**
 * Content-addressed store of everything that a clone is made from: kernel, initramfs, base images.
 *
 *   MAYFLY_HOME/store/sha256/ab/abcdef…     the bytes, read-only, named by their SHA-256
 *   MAYFLY_HOME/artefacts/NAME.json         what NAME is at present: digest, size, what it was built from
 *
 * Both are written beside their place, synced and renamed, so a reader finds the old, the new or nothing, never a half.
 * A blob is trusted while it is the very file that was stored (inode, size, mtime); otherwise its digest decides. That
 * catches damage, not an attacker who owns the store: whoever can write here can write the records as well.
 */
import { createHash } from 'node:crypto';
import { chmod, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { limits } from '../core/limits.ts';

export type Meta = { readonly [name: string]: unknown };

export interface Artefact {
  readonly name: string;
  /** Absolute path of the blob. */
  readonly path: string;
  /** `sha256:` and 64 hex digits. */
  readonly digest: string;
  readonly bytes: number;
  /** Digest over everything that it was built from; another one means that it is out of date. */
  readonly inputs: string;
  /** ISO 8601. */
  readonly madeAt: string;
  readonly meta: Meta;
}

/** What changes when a file is replaced or written to. As text: JSON has no 64-bit integers. */
interface Fingerprint {
  readonly inode: string;
  readonly mtimeNanos: string;
}

interface Record extends Omit<Artefact, 'path'> {
  readonly artefactVersion: 1;
  readonly file: Fingerprint;
}

interface NewArtefact {
  readonly name: string;
  /** A finished file in the store's file system; it is moved, not copied. */
  readonly file: string;
  readonly inputs: string;
  readonly madeAt: string;
  readonly meta: Meta;
}

export interface Store {
  /** Undefined when there is no such artefact or its record is unreadable. The blob has not been looked at. */
  find(name: string): Promise<Artefact | undefined>;
  /** Sorted names of all artefacts. */
  names(): Promise<string[]>;
  /** The blob is what its record says. `quick` reads it only when it is not the file that was stored. */
  intact(artefact: Artefact, depth: 'quick' | 'full'): Promise<boolean>;
  /** Moves a file into the store and makes it what `name` means. */
  put(made: NewArtefact): Promise<Artefact>;
  /** The file at the blob's place is the one that was stored, so `intact` need not read it. */
  trusted(artefact: Artefact): Promise<boolean>;
  /** Makes the file at the blob's place the trusted one: after `intact` has read all of it. */
  trust(artefact: Artefact): Promise<void>;
  /** Removes blobs that no artefact names; resolves to the bytes freed. */
  prune(): Promise<number>;
}

/** Store below an absolute path; nothing is created before the first `put`. */
export function openStore(home: string): Store {
  const records = join(home, 'artefacts');
  const blobs = join(home, 'store', 'sha256');
  const blobPath = (digest: string): string => {
    const hex = digest.slice('sha256:'.length);
    return join(blobs, hex.slice(0, 2), hex);
  };
  const recordPath = (name: string): string => join(records, `${name}.json`);

  async function names(): Promise<string[]> {
    const files = await listOrNone(records);
    return files.filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -'.json'.length)).sort();
  }

  async function find(name: string): Promise<Artefact | undefined> {
    const record = await readRecord(recordPath(name), name);
    if (record === undefined) return undefined;
    const { artefactVersion: _version, file: _file, ...artefact } = record;
    return { ...artefact, path: blobPath(record.digest) };
  }

  async function writeRecord(artefact: Artefact): Promise<void> {
    const { path, ...fields } = artefact;
    const record: Record = { artefactVersion: 1, ...fields, file: await fingerprint(path) };
    await writeDurably(recordPath(artefact.name), `${JSON.stringify(record, null, 2)}\n`);
  }

  async function trusted(artefact: Artefact): Promise<boolean> {
    const record = await readRecord(recordPath(artefact.name), artefact.name);
    if (record === undefined || record.digest !== artefact.digest) return false;
    const now = await fingerprint(artefact.path);
    return record.file.inode === now.inode && record.file.mtimeNanos === now.mtimeNanos;
  }

  return {
    find,
    names,
    trusted,
    async intact(artefact, depth) {
      const found = await stat(artefact.path).catch(() => undefined);
      if (found === undefined || !found.isFile() || found.size !== artefact.bytes) return false;
      if (depth === 'quick' && (await trusted(artefact))) return true;
      return (await digestFile(artefact.path)).digest === artefact.digest;
    },
    async put({ file, ...made }) {
      const { digest, bytes } = await digestFile(file);
      const path = blobPath(digest);
      await makeFolder(dirname(path));
      await chmod(file, 0o444);
      await withFile(file, (handle) => handle.sync());
      await rename(file, path);
      await syncFolder(dirname(path));
      const artefact: Artefact = { ...made, digest, bytes, path };
      await makeFolder(records);
      await writeRecord(artefact);
      return artefact;
    },
    trust: writeRecord,
    async prune() {
      const wanted = new Set<string>();
      for (const name of await names()) {
        const artefact = await find(name);
        // An unreadable record may name any blob: then nothing is known to be unused.
        if (artefact === undefined) return 0;
        wanted.add(artefact.path);
      }
      let freed = 0;
      for (const folder of await listOrNone(blobs)) {
        for (const name of await listOrNone(join(blobs, folder))) {
          const path = join(blobs, folder, name);
          if (wanted.has(path)) continue;
          freed += (await stat(path)).size;
          await rm(path, { force: true });
        }
      }
      return freed;
    },
  };
}

/** `sha256:` and 64 hex digits of a file of any size, and its size in bytes. */
export async function digestFile(path: string): Promise<{ readonly digest: string; readonly bytes: number }> {
  return await withFile(path, async (file) => {
    const hash = createHash('sha256');
    const chunk = Buffer.alloc(limits.copyChunkBytes);
    let bytes = 0;
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length, bytes);
      if (bytesRead === 0) break;
      hash.update(chunk.subarray(0, bytesRead));
      bytes += bytesRead;
    }
    return { digest: `sha256:${hash.digest('hex')}`, bytes };
  });
}

async function readRecord(path: string, name: string): Promise<Record | undefined> {
  try {
    const text = await withFile(path, async (file) => {
      const { size } = await file.stat();
      if (size > limits.artefactRecordBytesMax) throw new Error(`${path} has ${size} bytes`);
      return await file.readFile('utf8');
    });
    const record: unknown = JSON.parse(text);
    return isRecord(record) && record.name === name ? record : undefined;
  } catch {
    return undefined;
  }
}

const DIGEST = /^sha256:[0-9a-f]{64}$/;

function isRecord(value: unknown): value is Record {
  if (!isObject(value) || !isObject(value.file) || !isObject(value.meta)) return false;
  const texts = [value.name, value.madeAt, value.file.inode, value.file.mtimeNanos];
  return (
    value.artefactVersion === 1 &&
    texts.every((text) => typeof text === 'string') &&
    [value.digest, value.inputs].every((digest) => typeof digest === 'string' && DIGEST.test(digest)) &&
    Number.isSafeInteger(value.bytes)
  );
}

function isObject(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

async function fingerprint(path: string): Promise<Fingerprint> {
  const { ino, mtimeNs } = await stat(path, { bigint: true });
  return { inode: String(ino), mtimeNanos: String(mtimeNs) };
}

async function writeDurably(path: string, text: string): Promise<void> {
  const half = `${path}.half`;
  await rm(half, { force: true });
  const file = await open(half, 'wx', 0o644);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(half, path);
  await syncFolder(dirname(path));
}

/** Clones' VMMs have their own uids: they may pass through these folders and read these files, and no more. */
async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o755 });
}

async function listOrNone(path: string): Promise<string[]> {
  return await readdir(path).catch(() => []);
}

async function syncFolder(path: string): Promise<void> {
  await withFile(path, (folder) => folder.sync());
}

async function withFile<T>(path: string, use: (file: FileHandle) => Promise<T>): Promise<T> {
  const file = await open(path, 'r');
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}
