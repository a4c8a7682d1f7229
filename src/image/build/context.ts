/**
 * The files of a build, as they stand in the directory it is built from: listed once, links as links, nothing outside
 * of it, and nothing of the disk's own about them: an executable has mode 755, any other file 644, whatever the umask.
 */
import { constants } from 'node:fs';
import { lstat, open, readdir, readlink } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { pack } from 'tar-stream';
import type { Pack } from 'tar-stream';
import { MayflyError } from '../../core/errors.ts';
import { digestFile } from '../../core/files.ts';
import { printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { drained } from '../oci/flow.ts';
import { readFile } from '../oci/layout.ts';
import type { Layer } from '../oci/layer.ts';
import type { Refuse } from './file.ts';
import type { Copy } from './plan.ts';

export type BuildItem =
  | { readonly kind: 'file'; readonly mode: number; readonly size: number; readonly from: string }
  | { readonly kind: 'folder'; readonly mode: number }
  | { readonly kind: 'symlink'; readonly target: string };

/** By absolute path in the image; what is copied later takes the place of what was there. */
export type BuildItems = Map<string, BuildItem>;

/** Histories of version control: in no image. */
const HISTORY: ReadonlySet<string> = new Set(['.git', '.hg', '.svn']);

export interface Gathering {
  /** Absolute. */
  readonly context: string;
  readonly refuse: Refuse;
  readonly signal: AbortSignal;
  readonly items: BuildItems;
  /** Of all files so far. */
  bytes: number;
}

/** Adds what one instruction copies. Throws E_BUILD_FILE, E_IMAGE_UNSAFE, E_IMAGE_TOO_LARGE and E_INTERRUPTED. */
export async function gather(gathering: Gathering, copy: Copy, isFolder: (path: string) => boolean): Promise<void> {
  const { context, refuse, items } = gathering;
  const { line, target, intoFolder } = copy;
  for (const source of copy.sources) {
    await refuseLinks(context, source, line, refuse);
    const from = join(context, source);
    const found = await lstat(from).catch(() => undefined);
    if (found === undefined) throw refuse(line, `there is no ${source} in the directory that is built from`);
    if (found.isDirectory()) {
      if (target !== '/') addFolder(gathering, line, target, 0o755);
      await addContents(gathering, copy, from, target);
    } else {
      const inside = intoFolder || target === '/' || isFolder(target) || items.get(target)?.kind === 'folder';
      const path = inside ? posix.join(target, posix.basename(source)) : target;
      await addOne(gathering, copy, from, path);
    }
  }
}

/** A source that runs through a link would come from wherever that leads. */
async function refuseLinks(context: string, source: string, line: number, refuse: Refuse): Promise<void> {
  const parts = source.split('/');
  for (let count = 1; count < parts.length; count += 1) {
    const folder = parts.slice(0, count).join('/');
    const found = await lstat(join(context, folder)).catch(() => undefined);
    if (found?.isSymbolicLink() === true) throw refuse(line, `${source} runs through the link ${folder}`);
  }
}

/** Its depth is bounded by the length of a path. */
async function addContents(gathering: Gathering, copy: Copy, folder: string, to: string): Promise<void> {
  for (const name of (await readdir(folder)).sort()) {
    if (!HISTORY.has(name)) await addOne(gathering, copy, join(folder, name), posix.join(to, name));
  }
}

async function addOne(gathering: Gathering, copy: Copy, from: string, path: string): Promise<void> {
  const { items, signal, refuse } = gathering;
  const { line, mode } = copy;
  if (signal.aborted) throw new MayflyError('E_INTERRUPTED', 'The build was interrupted.');
  if (items.size >= limits.ociEntriesMax) {
    throw new MayflyError('E_IMAGE_TOO_LARGE', `There are more than ${limits.ociEntriesMax} files and folders.`);
  }
  if (/[\p{Cc}\ufffd]/u.test(path) || Buffer.byteLength(path) > limits.ociPathBytesMax) {
    throw refuse(line, `${printableLine(path, 100)} is no path for an image`);
  }
  const found = await lstat(from);
  if (found.isDirectory()) {
    addFolder(gathering, line, path, mode === undefined ? 0o755 : mode);
    return await addContents(gathering, copy, from, path);
  }
  if (items.get(path)?.kind === 'folder') throw refuse(line, `${path} is a folder already`);
  if (found.isSymbolicLink()) {
    items.set(path, { kind: 'symlink', target: await readlink(from) });
  } else if (found.isFile()) {
    gathering.bytes += found.size;
    if (gathering.bytes > limits.ociBytesMax) {
      throw new MayflyError('E_IMAGE_TOO_LARGE', `The files have more than ${limits.ociBytesMax} bytes.`);
    }
    const own = (found.mode & 0o111) === 0 ? 0o644 : 0o755;
    items.set(path, { kind: 'file', mode: mode ?? own, size: found.size, from });
  } else throw new MayflyError('E_IMAGE_UNSAFE', `${printableLine(from, 200)} is a device, socket or pipe.`);
}

function addFolder({ items, refuse }: Gathering, line: number, path: string, mode: number): void {
  const before = items.get(path);
  if (before !== undefined && before.kind !== 'folder') throw refuse(line, `${path} is a file already`);
  if (before === undefined) items.set(path, { kind: 'folder', mode });
}

/** The items as one archive in a file, which is then read like any other layer. Same items, same bytes. */
export async function writeLayer(items: BuildItems, file: string, signal: AbortSignal): Promise<Layer> {
  const archive = pack();
  const writing = writeItems(archive, items, signal);
  writing.catch((thrown: Error) => archive.destroy(thrown));
  const out = await open(file, 'wx', 0o600);
  try {
    for await (const chunk of archive) await out.writeFile(chunk as Buffer);
    await writing;
  } catch (thrown) {
    await writing;
    throw thrown;
  } finally {
    await out.close();
  }
  const { digest, bytes } = await digestFile(file);
  return { name: 'what is copied', digest, size: bytes, diffId: digest, open: () => readFile(file, 0, bytes) };
}

async function writeItems(archive: Pack, items: BuildItems, signal: AbortSignal): Promise<void> {
  for (const [path, item] of [...items].sort(([one], [other]) => (one < other ? -1 : 1))) {
    const header = { name: path.slice(1), mtime: new Date(0), uid: 0, gid: 0 };
    await new Promise<void>((resolve, reject) => {
      const done = (cause?: Error | null): void => (cause ? reject(cause) : resolve());
      if (item.kind === 'folder') {
        archive.entry({ ...header, type: 'directory', mode: item.mode, size: 0 }, done).end(undefined);
      } else if (item.kind === 'symlink') {
        archive.entry({ ...header, type: 'symlink', linkname: item.target, mode: 0o777, size: 0 }, done).end(undefined);
      } else {
        const entry = archive.entry({ ...header, type: 'file', mode: item.mode, size: item.size }, done);
        copyInto(entry, item, signal).catch(reject);
      }
    });
  }
  archive.finalize();
}

/** The file that was listed, still with that size; neither a link nor a pipe that has taken its place. */
async function copyInto(
  entry: NodeJS.WritableStream,
  { from, size }: Extract<BuildItem, { kind: 'file' }>,
  signal: AbortSignal,
): Promise<void> {
  const changed = (): MayflyError => new MayflyError('E_IMAGE_CORRUPT', `${printableLine(from, 200)} has changed.`);
  const file = await open(from, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(() => {
    throw changed();
  });
  try {
    const found = await file.stat();
    if (!found.isFile() || found.size !== size) throw changed();
    for (let at = 0; at < size;) {
      if (signal.aborted) throw new MayflyError('E_INTERRUPTED', 'The build was interrupted.');
      const chunk = Buffer.allocUnsafe(Math.min(limits.copyChunkBytes, size - at));
      const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
      if (bytesRead === 0) throw changed();
      at += bytesRead;
      if (!entry.write(chunk.subarray(0, bytesRead))) await drained(entry);
    }
    entry.end();
  } finally {
    await file.close();
  }
}
