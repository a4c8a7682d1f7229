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
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isObject } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { openBlobs } from './blobs.ts';
import { digestFile, fingerprint, listOrNone, makeFolder, withFile, writeDurably } from '../core/files.ts';

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

interface Record extends Omit<Artefact, 'path'> {
  readonly artefactVersion: 1;
  readonly file: { readonly inode: string; readonly mtimeNanos: string };
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
  /** Digests that artefacts name; undefined when a record is unreadable: it may name any blob. */
  referenced(): Promise<ReadonlySet<string> | undefined>;
}

/** Store below an absolute path; nothing is created before the first `put`. */
export function openStore(home: string): Store {
  const records = join(home, 'artefacts');
  const blobs = openBlobs(home);
  const recordPath = (name: string): string => join(records, `${name}.json`);

  async function names(): Promise<string[]> {
    const files = await listOrNone(records);
    return files.filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -'.json'.length)).sort();
  }

  async function find(name: string): Promise<Artefact | undefined> {
    const record = await readRecord(recordPath(name), name);
    if (record === undefined) return undefined;
    const { artefactVersion: _version, file: _file, ...artefact } = record;
    return { ...artefact, path: blobs.path(record.digest) };
  }

  async function writeRecord(artefact: Artefact): Promise<void> {
    const { path, ...fields } = artefact;
    const record: Record = { artefactVersion: 1, ...fields, file: await written(path) };
    await writeDurably(recordPath(artefact.name), `${JSON.stringify(record, null, 2)}\n`);
  }

  async function trusted(artefact: Artefact): Promise<boolean> {
    const record = await readRecord(recordPath(artefact.name), artefact.name);
    if (record === undefined || record.digest !== artefact.digest) return false;
    const now = await written(artefact.path);
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
      const { digest, bytes } = await blobs.put(file);
      const path = blobs.path(digest);
      const artefact: Artefact = { ...made, digest, bytes, path };
      await makeFolder(records);
      await writeRecord(artefact);
      return artefact;
    },
    trust: writeRecord,
    async referenced() {
      const wanted = new Set<string>();
      for (const name of await names()) {
        const artefact = await find(name);
        if (artefact === undefined) return undefined;
        wanted.add(artefact.digest);
      }
      return wanted;
    },
  };
}

async function written(path: string): Promise<Record['file']> {
  const { inode, mtimeNanos } = await fingerprint(path);
  return { inode, mtimeNanos };
}

async function readRecord(path: string, name: string): Promise<Record | undefined> {
  try {
    const text = await withFile(path, 'r', async (file) => {
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
