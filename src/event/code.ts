/**
 * Packs a customer's function for its journey into a clone: reads it from the caller's disk once, within limits, and
 * leaves out nothing silently. Only regular files, folders and links that stay inside are shipped; what the caller's
 * disk holds besides the function never leaves it.
 */
import { lstat, open, readdir, readlink, stat } from 'node:fs/promises';
import { basename, dirname, join, posix, relative, resolve } from 'node:path';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { FunctionEntry } from './workload.ts';

export interface PackOptions {
  /** Handler or program on this disk. */
  readonly entry: string;
  /** Folder to ship; `entry` must be inside. Default: see `packFunction`. */
  readonly folder?: string | undefined;
}

export interface PackedFunction {
  readonly entries: readonly FunctionEntry[];
  /** Absolute path of the entry in the guest, as in `/function/h.mjs`. */
  readonly entry: string;
  readonly bytes: number;
}

/** Where functions stand in the guest. */
const GUEST_FOLDER = '/function';
const SKIPPED_FOLDERS: ReadonlySet<string> = new Set(['.git', '.hg', '.svn']);

/**
 * Ships the entry alone, or its whole folder when `folder` names one or when package.json or node_modules stands beside
 * it. Rejects with E_HANDLER_MISSING, E_CODE_TOO_LARGE or E_CODE_UNSAFE.
 */
export async function packFunction({ entry, folder }: PackOptions): Promise<PackedFunction> {
  const file = resolve(entry);
  await requireFile(file, entry);
  const root = folder === undefined ? await packageFolder(file) : resolve(folder);
  if (root === undefined) {
    const packer = new Packer(dirname(file));
    await packer.addFile(file, basename(file), await lstat(await realFile(file)));
    return packer.finish(basename(file));
  }
  const inside = relative(root, file);
  if (inside === '' || inside.startsWith('..')) {
    throw new MayflyError('E_HANDLER_MISSING', `${entry} is not inside the folder to ship, ${root}`);
  }
  const packer = new Packer(root);
  await packer.addFolder(root, '');
  return packer.finish(inside);
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
  const found = await stat(file).catch((error: NodeJS.ErrnoException) => {
    const reason = error.code === 'ENOENT' ? 'there is no such file' : `it cannot be read (${error.code})`;
    throw new MayflyError('E_HANDLER_MISSING', `${shown}: ${reason}`, { cause: error });
  });
  if (found.isDirectory()) {
    throw new MayflyError('E_HANDLER_MISSING', `${shown} is a folder`, {
      remedy: 'Name the handler file inside it, and ship the folder with `--code`.',
    });
  }
  if (!found.isFile()) throw new MayflyError('E_HANDLER_MISSING', `${shown} is not a regular file`);
}

/** A handler that is itself a link is shipped as what it points to. */
async function realFile(file: string): Promise<string> {
  const link = await readlink(file).catch(() => undefined);
  return link === undefined ? file : resolve(dirname(file), link);
}

class Packer {
  readonly #root: string;
  readonly #entries: FunctionEntry[] = [];
  #bytes = 0;

  constructor(root: string) {
    this.#root = root;
  }

  finish(entry: string): PackedFunction {
    return { entries: this.#entries, entry: posix.join(GUEST_FOLDER, entry), bytes: this.#bytes };
  }

  /** Depth is bounded by the length of a path. Sorted: the same folder gives the same entries. */
  async addFolder(folder: string, path: string): Promise<void> {
    for (const name of (await readdir(folder)).sort()) {
      const [from, to] = [join(folder, name), path === '' ? name : `${path}/${name}`];
      const found = await lstat(from);
      if (found.isDirectory()) {
        if (SKIPPED_FOLDERS.has(name)) continue;
        this.#push({ kind: 'folder', path: to, mode: found.mode & 0o755 });
        await this.addFolder(from, to);
      } else if (found.isSymbolicLink()) {
        this.#push({ kind: 'link', path: to, mode: 0o777, target: await this.#insideTarget(from, to) });
      } else if (found.isFile()) {
        await this.addFile(from, to, found);
      } else {
        throw new MayflyError('E_CODE_UNSAFE', `${from} is a device, socket or pipe`);
      }
    }
  }

  async addFile(from: string, path: string, { mode, size }: { mode: number; size: number }): Promise<void> {
    if (this.#bytes + size > limits.codeBytesMax) this.#tooLarge(`more than ${limits.codeBytesMax} bytes (at ${path})`);
    const content = await readBounded(from, limits.codeBytesMax - this.#bytes);
    this.#bytes += content.length;
    this.#push({ kind: 'file', path, mode: mode & 0o755, content });
  }

  async #insideTarget(from: string, path: string): Promise<string> {
    const target = await readlink(from);
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
    if (this.#entries.length >= limits.codeEntriesMax) this.#tooLarge(`more than ${limits.codeEntriesMax} files and folders`);
    this.#entries.push(entry);
  }

  #tooLarge(what: string): never {
    throw new MayflyError('E_CODE_TOO_LARGE', `${this.#root} has ${what}`);
  }
}

/** The whole file, and no more than it may have: it can grow while it is read. */
async function readBounded(path: string, bytesMax: number): Promise<Buffer> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new MayflyError('E_HANDLER_MISSING', `${path} cannot be read (${code})`, { cause });
  }
  try {
    const content = await file.readFile();
    if (content.length > bytesMax) throw new MayflyError('E_CODE_TOO_LARGE', `${path} grew while it was read`);
    return content;
  } finally {
    await file.close();
  }
}
