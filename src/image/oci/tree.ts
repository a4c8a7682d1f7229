/**
 * What an image's layers come to, as an index of paths: pure, in memory, and without a single byte of content. Layers
 * are given from the top down, so that whatever is below something that hides it is never looked at again.
 *
 * A path must not run through a link or a file: not within a layer, where an engine that unpacks it would be led
 * elsewhere, and not from a layer above that did not say that it replaces the link.
 */
import { MayflyError } from '../../core/errors.ts';
import { printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { parentOf, unsafe } from './path.ts';

export interface LayerEntry {
  /** As `cleanPath` makes it; `''` is the root. */
  readonly path: string;
  readonly kind: 'file' | 'folder' | 'symlink' | 'hardlink';
  /** Permission bits. */
  readonly mode: number;
  /** Unix seconds. */
  readonly mtime: number;
  /** Bytes of a file. */
  readonly size: number;
  /** Text of a symbolic link, or the clean path that a hard link is another name of. */
  readonly target: string;
}

export interface TreeNode {
  readonly kind: 'file' | 'folder' | 'symlink';
  readonly mode: number;
  readonly mtime: number;
  readonly size: number;
  readonly target: string;
  /** Where the content is: layer from the bottom, and number of the entry in it. */
  readonly layer: number;
  readonly ordinal: number;
  /** False for a folder that is only there because something is in it. */
  readonly explicit: boolean;
}

export class Tree {
  readonly #nodes = new Map<string, TreeNode>();
  readonly #hidden = new Set<string>();
  readonly #opaque = new Set<string>();
  #own = new Map<string, TreeNode>();
  #whiteouts: string[] = [];
  #opaques: string[] = [];
  #layer: number;
  #entries = 0;
  #pathBytes = 0;

  constructor(layers: number) {
    this.#layer = layers - 1;
  }

  /** Paths of the whole image; complete after the last `endLayer`. */
  get nodes(): ReadonlyMap<string, TreeNode> {
    return this.#nodes;
  }

  /** `ordinal` is the number of the entry in its layer. Throws E_IMAGE_UNSAFE, _TOO_LARGE and _UNSUPPORTED. */
  add(entry: LayerEntry, ordinal: number): void {
    const { path, target } = entry;
    this.#count(path, target);
    if (path === '') {
      if (entry.kind !== 'folder') throw unsafe('/', 'is not a folder');
      return;
    }
    this.#requireFolders(path);
    const before = this.#own.get(path);
    if (before !== undefined && !(before.kind === 'folder' && entry.kind === 'folder')) {
      throw unsafe(
        path,
        before.explicit ? 'is in its layer twice' : 'is in its layer as a folder and as something else',
      );
    }
    this.#own.set(path, this.#toNode(entry, ordinal));
  }

  /** Hides a path in the layers below. */
  whiteout(path: string): void {
    this.#count(path, '');
    this.#whiteouts.push(path);
  }

  /** Hides in the layers below all that is in a folder. */
  opaque(path: string): void {
    this.#count(path, '');
    this.#opaques.push(path);
  }

  /** The layer is complete; the one below comes next. Throws E_IMAGE_UNSAFE. */
  endLayer(): void {
    const covered = new Set<string>();
    for (const [path, node] of this.#own) {
      const parent = parentOf(path);
      const parentNode = parent === '' ? undefined : this.#nodes.get(parent);
      const hidden =
        this.#hidden.has(path) ||
        covered.has(parent) ||
        this.#opaque.has(parent) ||
        (parent !== '' && parentNode?.kind !== 'folder');
      if (hidden) covered.add(path);
      else this.#place(path, node);
    }
    for (const path of this.#whiteouts) this.#hidden.add(path);
    for (const path of this.#opaques) this.#opaque.add(path);
    this.#own = new Map();
    this.#whiteouts = [];
    this.#opaques = [];
    this.#layer -= 1;
  }

  #place(path: string, node: TreeNode): void {
    const above = this.#nodes.get(path);
    if (above === undefined) this.#nodes.set(path, node);
    else if (above.kind === 'folder' && !above.explicit) {
      if (node.kind !== 'folder') throw unsafe(path, 'is no folder, and a layer above has files in it');
      if (node.explicit) this.#nodes.set(path, node);
    }
  }

  #toNode(entry: LayerEntry, ordinal: number): TreeNode {
    const { path, kind, mode, mtime, size, target } = entry;
    if (kind !== 'hardlink') return { kind, mode, mtime, size, target, layer: this.#layer, ordinal, explicit: true };
    const meant = this.#own.get(target);
    if (meant?.kind === 'folder') throw unsafe(path, 'is a hard link to a folder');
    if (meant !== undefined) return meant;
    const shown = printableLine(`${path} is a hard link to ${target}`, 400);
    throw new MayflyError('E_IMAGE_UNSUPPORTED', `${shown}, which does not come before it in the same layer.`);
  }

  /** Its ancestors, noted as folders where the layer has not listed them. */
  #requireFolders(path: string): void {
    const missing: string[] = [];
    for (let folder = parentOf(path); folder !== ''; folder = parentOf(folder)) {
      const found = this.#own.get(folder);
      if (found?.kind === 'folder') break;
      if (found !== undefined) throw unsafe(path, `runs through ${printableLine(folder, 200)}, which is no folder`);
      missing.push(folder);
    }
    for (const folder of missing.reverse()) {
      this.#count(folder, '');
      this.#own.set(folder, { ...IMPLICIT, layer: this.#layer });
    }
  }

  #count(path: string, target: string): void {
    this.#entries += 1;
    this.#pathBytes += path.length + target.length;
    if (this.#entries > limits.ociEntriesMax) {
      throw new MayflyError(
        'E_IMAGE_TOO_LARGE',
        `The layers have more than ${limits.ociEntriesMax} files and folders.`,
      );
    }
    if (this.#pathBytes > limits.ociPathsBytesMax) {
      throw new MayflyError('E_IMAGE_TOO_LARGE', `The layers' paths have more than ${limits.ociPathsBytesMax} bytes.`);
    }
  }
}

const IMPLICIT = { kind: 'folder', mode: 0o755, mtime: 0, size: 0, target: '', ordinal: -1, explicit: false } as const;

/** Links that are followed on the way to one file, as in Linux. */
const LINKS_MAX = 40;

/** What an absolute path of the image leads to, links followed; undefined when it leads nowhere. */
export function lookUp(nodes: ReadonlyMap<string, TreeNode>, path: string): TreeNode | undefined {
  let rest = path.split('/');
  let at = '';
  let links = 0;
  while (rest.length > 0) {
    const [part = '', ...after] = rest;
    rest = after;
    if (part === '' || part === '.') continue;
    if (part === '..') {
      at = parentOf(at);
      continue;
    }
    const next = at === '' ? part : `${at}/${part}`;
    const node = nodes.get(next);
    if (node === undefined) return undefined;
    if (node.kind === 'symlink') {
      links += 1;
      const target = node.target.split('/');
      if (links > LINKS_MAX || target.length + rest.length > limits.ociPathBytesMax) return undefined;
      rest = [...target, ...rest];
      if (node.target.startsWith('/')) at = '';
      continue;
    }
    if (node.kind === 'file') return rest.every((name) => name === '') ? node : undefined;
    at = next;
  }
  return at === '' ? undefined : nodes.get(at);
}
