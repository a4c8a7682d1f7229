/**
 * What a snapshot is kept in: files whose pieces are compressed and encrypted one by one (AES-256-GCM), under a key
 * that is derived for each snapshot from the key of its tenant. A piece that was changed, moved, left out or cut off
 * is found when it is read. Without the tenant's key, which is one small file, there is nothing to read: to delete
 * that file is to delete all snapshots of the tenant.
 */
import { createCipheriv, createDecipheriv, createHash, hkdfSync } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { MayflyError } from '../core/errors.ts';
import { makeFolder, readAtMost, writeDurably } from '../core/files.ts';
import { limits } from '../core/limits.ts';
import type { Random } from '../core/random.ts';

const KEY_BYTES = 32;
const TAG_BYTES = 16;
const MAGIC = Buffer.from('MFLYSNP1');
/** Length of a piece, whether it is the last, its tag. */
const HEAD_BYTES = 4 + 1 + TAG_BYTES;

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

/** Of one tenant; made when there is none. Rejects with E_FORENSICS_KEY. */
export async function tenantKey(home: string, tenant: string, random: Random): Promise<Buffer> {
  const folder = join(home, 'keys', 'forensics');
  const path = join(folder, `${tenant}.key`);
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    const key = random.bytes(KEY_BYTES);
    await makeFolder(join(home, 'keys'), 0o700);
    await makeFolder(folder, 0o700);
    await writeDurably(path, key, 0o600);
    return key;
  }
  if ((found.mode & 0o077) !== 0) throw new MayflyError('E_FORENSICS_KEY', `${path} can be read by others.`);
  return await readKey(home, tenant);
}

/** Rejects with E_FORENSICS_KEY when there is none. */
export async function readKey(home: string, tenant: string): Promise<Buffer> {
  const path = join(home, 'keys', 'forensics', `${tenant}.key`);
  const key = await readAtMost(path, KEY_BYTES + 1).catch((cause: unknown) => {
    throw new MayflyError('E_FORENSICS_KEY', `${path}: ${(cause as Error).message}`, { cause });
  });
  if (key.length !== KEY_BYTES) throw new MayflyError('E_FORENSICS_KEY', `${path} is not a key of ${KEY_BYTES} bytes.`);
  return key;
}

/** Keys are never used for two snapshots, so a counter is a nonce. `label`: snapshot and file. */
function fileKey(key: Buffer, label: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), Buffer.from(`mayfly snapshot v1 ${label}`), KEY_BYTES));
}

function nonceOf(index: number): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32BE(index, 8);
  return nonce;
}

export interface SealedFile {
  readonly name: string;
  /** On the disk. */
  readonly bytes: number;
  /** `sha256:` and 64 hex digits over what is on the disk. */
  readonly digest: string;
}

export class SealedWriter {
  readonly #file: FileHandle;
  readonly #name: string;
  readonly #key: Buffer;
  readonly #hash = createHash('sha256');
  #index = 0;
  #bytes = 0;

  private constructor(file: FileHandle, name: string, key: Buffer) {
    this.#file = file;
    this.#name = name;
    this.#key = key;
  }

  static async create(folder: string, name: string, key: Buffer, label: string): Promise<SealedWriter> {
    const file = await open(join(folder, name), 'wx', 0o600);
    const writer = new SealedWriter(file, name, fileKey(key, label));
    await writer.#put(MAGIC);
    return writer;
  }

  /** One piece. */
  async write(piece: Buffer): Promise<void> {
    await this.#seal(piece, 0);
  }

  async end(): Promise<SealedFile> {
    await this.#seal(Buffer.alloc(0), 1);
    await this.#file.sync();
    await this.#file.close();
    return { name: this.#name, bytes: this.#bytes, digest: `sha256:${this.#hash.digest('hex')}` };
  }

  /** Gives up; the file stays where it is. */
  async abandon(): Promise<void> {
    await this.#file.close().catch(() => {});
  }

  async #seal(piece: Buffer, last: 0 | 1): Promise<void> {
    const packed = await compress(piece, { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonceOf(this.#index++));
    cipher.setAAD(Buffer.from([last]));
    const sealed = Buffer.concat([cipher.update(packed), cipher.final()]);
    const head = Buffer.alloc(5);
    head.writeUInt32LE(sealed.length, 0);
    head.writeUInt8(last, 4);
    await this.#put(Buffer.concat([head, cipher.getAuthTag(), sealed]));
  }

  async #put(bytes: Buffer): Promise<void> {
    const { bytesWritten } = await this.#file.write(bytes);
    if (bytesWritten !== bytes.length) throw Object.assign(new Error('short write'), { code: 'ENOSPC' });
    this.#hash.update(bytes);
    this.#bytes += bytes.length;
  }
}

/** The pieces of a sealed file. Throws E_FORENSICS_CORRUPT when it is not as it was written, or the key is another. */
export async function* readSealed(folder: string, name: string, key: Buffer, label: string): AsyncGenerator<Buffer> {
  const path = join(folder, name);
  const file = await open(path, 'r').catch((cause: unknown) => {
    throw new MayflyError('E_FORENSICS_CORRUPT', `${path}: ${(cause as Error).message}`, { cause });
  });
  const corrupt = (why: string, cause?: unknown): MayflyError =>
    new MayflyError('E_FORENSICS_CORRUPT', `${path}: ${why}`, { cause });
  const derived = fileKey(key, label);
  const take = async (length: number, at: number): Promise<Buffer> => {
    const bytes = Buffer.alloc(length);
    const { bytesRead } = await file.read(bytes, 0, length, at);
    if (bytesRead !== length) throw corrupt('it ends too early');
    return bytes;
  };
  try {
    if (!(await take(MAGIC.length, 0)).equals(MAGIC)) throw corrupt('it is no part of a snapshot');
    let at = MAGIC.length;
    for (let index = 0; ; index++) {
      const head = await take(HEAD_BYTES, at);
      const [length, last] = [head.readUInt32LE(0), head.readUInt8(4)];
      if (length > limits.snapshotPieceBytesMax) throw corrupt('a piece is too long');
      const sealed = await take(length, at + HEAD_BYTES);
      at += HEAD_BYTES + length;
      const decipher = createDecipheriv('aes-256-gcm', derived, nonceOf(index));
      decipher.setAAD(Buffer.from([last]));
      decipher.setAuthTag(head.subarray(5));
      let packed: Buffer;
      try {
        packed = Buffer.concat([decipher.update(sealed), decipher.final()]);
      } catch (cause) {
        throw corrupt('a piece was changed, or the key is another', cause);
      }
      if (last === 1) return;
      yield await decompress(packed, { maxOutputLength: limits.snapshotPieceBytesMax });
    }
  } finally {
    await file.close();
  }
}
