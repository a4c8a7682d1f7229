/**
 * Packs a customer's function for its journey into a clone: read once from the caller's disk, within limits. Only
 * regular files, folders and links that stay inside are shipped, and anything else is refused instead of left out;
 * only the history of version control stays behind. The same files give the same entries in the same order.
 */
import { constants } from 'node:fs';
import { open, lstat, readdir, readlink, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { basename, dirname, join, posix, relative, resolve, sep } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { FunctionEntry } from './workload.ts';

export interface PackOptions {
  /** Handler or executable on this disk. */
  readonly entry: string;
  /** Folder to ship; `entry` must be inside. Default: see `packFunction`. */
  readonly folder?: string | undefined;
}

export interface PackedFunction {
  readonly entries: readonly FunctionEntry[];
  /** Absolute path of the entry in the guest, as in `/function/h.mjs`. */
  readonly entry: string;
  /** Sum of all files. */
  readonly bytes: number;
  /** Absolute path of the folder that was shipped; undefined when it was the entry alone. */
  readonly root: string | undefined;
}

/** Where functions stand in the guest. */
const GUEST_FOLDER = '/function';
const HISTORY: ReadonlySet<string> = new Set(['.git', '.hg', '.svn']);

/**
 * Ships the entry alone, or its whole folder when `folder` names one or when package.json or node_modules stands beside
 * it. Rejects with E_HANDLER_MISSING, E_CODE_TOO_LARGE or E_CODE_UNSAFE.
 */
export async function packFunction({ entry, folder }: PackOptions): Promise<PackedFunction> {
  const file = resolve(entry);
  await requireFile(file, entry);
  const root = folder === undefined ? await packageFolder(file) : resolve(folder);
  const packer = new Packer(root ?? dirname(file));
  if (root === undefined) {
    // The entry itself may be a link: it was named, so what it points to is what is meant.
    await packer.addFile(file, basename(file), constants.O_RDONLY);
    return packer.finish(basename(file), root);
  }
  const inside = relative(root, file).split(sep).join('/');
  if (inside === '' || inside === '..' || inside.startsWith('../')) {
    throw new MayflyError('E_HANDLER_MISSING', `${entry} is not inside the folder to ship, ${root}`);
  }
  await packer.addFolder(root, '');
  return packer.finish(inside, root);
}

/** The entry's folder when it is a package: what stands there belongs to the function. */
async function packageFolder(file: string): Promise<string | undefined> {
  const folder = dirname(file);
  for (const name of ['package.json', 'node_modules']) {
    if ((await stat(join(folder, name)).catch(() => undefined)) !== undefined) return folder;
  }
  return undefined;
}

async function requireFile(file: string, shown: string): Promise<void> {
  const found = await stat(file).catch((thrown: unknown) => {
    throw unreadable(shown, thrown);
  });
  if (found.isDirectory()) {
    throw new MayflyError('E_HANDLER_MISSING', `${shown} is a folder`, {
      remedy: 'Name the handler file inside it, and ship the folder with `--code`.',
    });
  }
  if (!found.isFile()) throw new MayflyError('E_HANDLER_MISSING', `${shown} is not a regular file`);
}

function unreadable(path: string, cause: unknown): MayflyError {
  const { code } = cause as NodeJS.ErrnoException;
  const reason = code === 'ENOENT' ? 'there is no such file' : `it cannot be read (${code})`;
  return new MayflyError('E_HANDLER_MISSING', `${path}: ${reason}`, { cause });
}

class Packer {
  readonly #root: string;
  readonly #entries: FunctionEntry[] = [];
  #bytes = 0;

  constructor(root: string) {
    this.#root = root;
  }

  finish(entry: string, root: string | undefined): PackedFunction {
    return { entries: this.#entries, entry: posix.join(GUEST_FOLDER, entry), bytes: this.#bytes, root };
  }

  /** Its depth is bounded by the length of a path. */
  async addFolder(folder: string, path: string): Promise<void> {
    const names = await read(folder, (name) => readdir(name));
    for (const name of names.sort()) {
      const [from, to] = [join(folder, name), path === '' ? name : `${path}/${name}`];
      const found = await read(from, (file) => lstat(file));
      if (found.isDirectory()) {
        if (HISTORY.has(name)) continue;
        this.#push({ kind: 'folder', path: to, mode: found.mode & 0o755 });
        await this.addFolder(from, to);
      } else if (found.isSymbolicLink()) {
        this.#push({ kind: 'link', path: to, mode: 0o777, target: await this.#insideTarget(from, to) });
      } else if (found.isFile()) {
        // Should a link or a pipe have taken its place meanwhile, it is neither followed nor waited for.
        await this.addFile(from, to, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      } else {
        throw new MayflyError('E_CODE_UNSAFE', `${from} is a device, socket or pipe`);
      }
    }
  }

  async addFile(from: string, path: string, flags: number): Promise<void> {
    const file = await read(from, (name) => open(name, flags));
    try {
      const found = await file.stat();
      if (!found.isFile()) throw new MayflyError('E_CODE_UNSAFE', `${from} changed while it was read`);
      const room = limits.codeBytesMax - this.#bytes;
      const content = found.size > room ? undefined : await readWhole(file, found.size, room);
      if (content === undefined) this.#tooLarge(`more than ${limits.codeBytesMax} bytes (at ${path})`);
      this.#bytes += content.length;
      this.#push({ kind: 'file', path, mode: found.mode & 0o755, content });
    } finally {
      await file.close();
    }
  }

  async #insideTarget(from: string, path: string): Promise<string> {
    const target = await read(from, (name) => readlink(name));
    const reached = posix.normalize(posix.join(posix.dirname(path), target));
    if (posix.isAbsolute(target) || reached === '..' || reached.startsWith('../')) {
      throw new MayflyError('E_CODE_UNSAFE', `${from} is a link that leaves the function: ${target}`);
    }
    return target;
  }

  #push(entry: FunctionEntry): void {
    if (Buffer.byteLength(entry.path) > limits.codePathBytesMax) {
      this.#tooLarge(`a path of more than ${limits.codePathBytesMax} bytes: ${entry.path.slice(0, 80)}…`);
    }
    if (this.#entries.length >= limits.codeEntriesMax) {
      this.#tooLarge(`more than ${limits.codeEntriesMax} files and folders`);
    }
    this.#entries.push(entry);
  }

  #tooLarge(what: string): never {
    throw new MayflyError('E_CODE_TOO_LARGE', `${this.#root} has ${what}`);
  }
}

/** What the disk refuses is an error that names the file. */
async function read<T>(path: string, how: (path: string) => Promise<T>): Promise<T> {
  return await how(path).catch((thrown: unknown) => {
    throw unreadable(path, thrown);
  });
}

/**
 * The whole file, also when it has grown since it was looked at; undefined when there is more of it than `bytesMax`.
 */
async function readWhole(file: FileHandle, size: number, bytesMax: number): Promise<Buffer | undefined> {
  let buffer = Buffer.alloc(Math.min(size, bytesMax) + 1);
  let filled = 0;
  for (;;) {
    const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, filled);
    filled += bytesRead;
    if (bytesRead === 0) return buffer.subarray(0, filled);
    if (filled > bytesMax) return undefined;
    if (filled === buffer.length) buffer = Buffer.concat([buffer, Buffer.alloc(filled)]);
  }
}
