/**
 * One layer as a stream of entries: its digest is checked, it is decompressed, its archive parsed and every entry
 * judged, all while it passes by and with bounds at each step. Nothing of it is written anywhere.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { extract } from 'tar-stream';
import type { Extract, Header } from 'tar-stream';
import { MayflyError } from '../../core/errors.ts';
import { printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { corrupt } from './documents.ts';
import { drained } from './flow.ts';
import { cleanPath, parseEntryName, unsafe } from './path.ts';
import type { EntryName } from './path.ts';
import type { LayerEntry } from './tree.ts';

export interface Layer {
  /** For messages, as in `layer 2 of 5`. */
  readonly name: string;
  /** SHA-256 of what `open` gives; undefined when only the archive's own digest is known. */
  readonly digest: string | undefined;
  /** Bytes of what `open` gives. */
  readonly size: number;
  /** SHA-256 of the plain tar archive. */
  readonly diffId: string;
  open(): AsyncIterable<Buffer>;
}

export type LayerItem =
  | { readonly kind: 'entry'; readonly entry: LayerEntry; readonly content: AsyncIterable<Buffer> }
  | Exclude<EntryName, { kind: 'entry' }>;

/** What all layers of one import may come to together. */
export interface Budget {
  bytesLeft: number;
}

/**
 * Calls `visit` for each item with its number in the layer, and waits for it; content that it does not read is skipped.
 * Rejects with E_IMAGE_CORRUPT, E_IMAGE_UNSAFE, E_IMAGE_TOO_LARGE or E_INTERRUPTED.
 */
export async function readLayer(
  layer: Layer,
  budget: Budget,
  signal: AbortSignal,
  visit: (item: LayerItem, ordinal: number) => void | Promise<void>,
): Promise<void> {
  const tar = extract();
  const meter = { silent: 0 };
  const feeding = feed(tar, plainArchive(layer, budget, meter), signal);
  // Its failure reaches the loop below through the parser, or is thrown after it.
  feeding.catch((thrown: Error) => tar.destroy(thrown));
  try {
    let ordinal = 0;
    for await (const entry of tar) {
      meter.silent = 0;
      await visit(toItem(entry as Source, meter), ordinal);
      for await (const _rest of entry) meter.silent = 0;
      ordinal += 1;
    }
    await feeding;
  } catch (thrown) {
    tar.destroy(null);
    throw toProblem(layer, thrown, signal);
  }
}

/** The archive's bytes, decompressed, counted and compared with their digest. */
async function* plainArchive(layer: Layer, budget: Budget, meter: { silent: number }): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  const taken = { bytes: 0 };
  let bytes = 0;
  for await (const chunk of decompressed(verified(layer, taken))) {
    bytes += chunk.length;
    budget.bytesLeft -= chunk.length;
    meter.silent += chunk.length;
    if (budget.bytesLeft < 0) throw tooLarge(layer, `takes the image over ${limits.ociBytesMax} bytes`);
    if (bytes > limits.ociRatioFromBytes && bytes > taken.bytes * limits.ociRatioMax) {
      throw tooLarge(layer, `has more than ${limits.ociRatioMax} bytes for each compressed one`);
    }
    if (meter.silent > limits.ociTarSilenceBytesMax) throw tooLarge(layer, 'has an archive header without an end');
    hash.update(chunk);
    yield chunk;
  }
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== layer.diffId)
    throw corrupt(layer.name, `its archive is ${found}, and the configuration says ${layer.diffId}`);
}

/** What is stored or sent, compared with size and digest when it ends. */
async function* verified(layer: Layer, taken: { bytes: number }): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  for await (const chunk of layer.open()) {
    taken.bytes += chunk.length;
    if (taken.bytes > layer.size)
      throw corrupt(layer.name, `it has more than the ${layer.size} bytes that were announced`);
    if (layer.digest !== undefined) hash.update(chunk);
    yield chunk;
  }
  if (taken.bytes !== layer.size) throw corrupt(layer.name, `it has ${taken.bytes} bytes instead of ${layer.size}`);
  if (layer.digest === undefined) return;
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== layer.digest) throw corrupt(layer.name, `it is ${found} instead of ${layer.digest}`);
}

const GZIP = Buffer.from([0x1f, 0x8b]);
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/** By its first bytes: media types of old images and of archives say nothing or something wrong. */
async function* decompressed(source: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  let head = Buffer.alloc(0);
  while (head.length < ZSTD.length) {
    const next = await source.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  const whole = (async function* () {
    if (head.length > 0) yield head;
    yield* source;
  })();
  const starts = (magic: Buffer): boolean => head.subarray(0, magic.length).equals(magic);
  const decoder = starts(GZIP) ? createGunzip() : starts(ZSTD) ? createZstdDecompress() : undefined;
  if (decoder === undefined) {
    yield* whole;
    return;
  }
  const input = Readable.from(whole, { objectMode: false });
  input.once('error', (thrown) => decoder.destroy(thrown));
  try {
    yield* input.pipe(decoder) as AsyncIterable<Buffer>;
  } finally {
    input.destroy();
    decoder.destroy();
  }
}

async function feed(tar: Extract, source: AsyncIterable<Buffer>, signal: AbortSignal): Promise<void> {
  for await (const chunk of source) {
    if (signal.aborted) throw new MayflyError('E_INTERRUPTED', 'The import was interrupted.');
    if (tar.destroyed) return;
    // Also when the reader has given up: a stream that is destroyed never drains.
    if (!tar.write(chunk)) await drained(tar);
  }
  tar.end(undefined);
}

type Source = AsyncIterable<Buffer> & { readonly header: Header };

function toItem(entry: Source, meter: { silent: number }): LayerItem {
  const { header } = entry;
  const name = parseEntryName(header.name);
  if (name.kind !== 'entry') return name;
  const { path } = name;
  // A clone has devices of its own, and what is below its /dev is never seen.
  if (path.startsWith('dev/')) return { kind: 'ignored' };
  const kind = kindOf(path, header.type);
  const target = targetOf(path, kind, header.linkname);
  const content = (async function* () {
    for await (const chunk of entry) {
      meter.silent = 0;
      yield chunk;
    }
  })();
  const size = kind === 'file' ? header.size : 0;
  return {
    kind: 'entry',
    entry: { path, kind, mode: modeOf(header), mtime: mtimeOf(header.mtime), size, target },
    content,
  };
}

function kindOf(path: string, type: string | null | undefined): LayerEntry['kind'] {
  switch (type) {
    case 'file':
    case 'contiguous-file':
      return 'file';
    case 'directory':
      return 'folder';
    case 'symlink':
      return 'symlink';
    case 'link':
      return 'hardlink';
    case 'character-device':
    case 'block-device':
      throw unsafe(path, 'is a device');
    case 'fifo':
      throw unsafe(path, 'is a named pipe');
    default:
      throw unsafe(path, 'is of a kind that no image may have');
  }
}

function targetOf(path: string, kind: LayerEntry['kind'], text: string | null | undefined): string {
  if (kind !== 'symlink' && kind !== 'hardlink') return '';
  if (kind === 'hardlink') return cleanPath(text ?? '');
  if (text === null || text === undefined || text === '' || text.includes('\0') || text.includes('\ufffd')) {
    throw unsafe(path, 'is a link without a usable target');
  }
  if (Buffer.byteLength(text) > limits.ociPathBytesMax) throw unsafe(path, 'is a link with too long a target');
  return text;
}

/**
 * No set-uid and no set-gid. Every file of a base image is root's and the workload is somebody else, so what belonged
 * to a user of the image may be read by all: it is what that image's program reads.
 */
function modeOf({ mode, type, uid }: Header): number {
  const kept = mode & (type === 'directory' ? 0o1777 : 0o777);
  return uid === 0 ? kept : kept | ((kept >> 6) & 0o5);
}

function mtimeOf(mtime: Date | undefined): number {
  const seconds = Math.floor((mtime?.getTime() ?? 0) / 1000);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 0xffff_ffff) : 0;
}

function tooLarge(layer: Layer, why: string): MayflyError {
  return new MayflyError('E_IMAGE_TOO_LARGE', `${printableLine(layer.name, 200)} ${why}.`);
}

/** Parsers and decoders of others throw errors of their own: then the archive is not one. */
function toProblem(layer: Layer, thrown: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return new MayflyError('E_INTERRUPTED', 'The import was interrupted.', { cause: thrown });
  if (thrown instanceof MayflyError) return thrown;
  const { code, message } = thrown as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'EACCES') return corrupt(layer.name, `it cannot be read (${code})`);
  return corrupt(layer.name, message);
}
