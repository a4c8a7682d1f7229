/** From the index of an image to what its file system will hold: with the folders and files that a clone needs. */
import { unsafe } from './path.ts';
import type { TreeNode } from './tree.ts';

interface Content {
  /** The first one holds the bytes, the others are hard links to it. */
  readonly paths: readonly string[];
  readonly mode: number;
  readonly mtime: number;
  readonly size: number;
}

export interface Plan {
  /** Parents before what is in them. */
  readonly folders: readonly { readonly path: string; readonly mode: number; readonly mtime: number }[];
  readonly symlinks: readonly { readonly path: string; readonly target: string; readonly mtime: number }[];
  /** Files that no layer has. */
  readonly made: readonly { readonly path: string; readonly content: Buffer }[];
  /** By layer from the bottom, then by number of the entry in it. */
  readonly contents: ReadonlyMap<number, ReadonlyMap<number, Content>>;
  /** Bytes of all files. */
  readonly bytes: number;
  /** Folders, links and files. */
  readonly entries: number;
}

/** What the agent mounts on (guest/agent/root.c) or programs take for granted, with their modes. */
const FOLDERS: ReadonlyMap<string, number> = new Map([
  ['dev', 0o755],
  ['etc', 0o755],
  ['function', 0o755],
  ['proc', 0o755],
  ['run', 0o755],
  ['sys', 0o755],
  ['tmp', 0o1777],
]);

/** The agent writes a clone's own into these. */
const IDENTITY: readonly string[] = ['etc/hostname', 'etc/hosts', 'etc/machine-id'];

/** For images that do not know their workload's user or do without. */
const MADE_IF_MISSING: ReadonlyMap<string, string> = new Map([
  ['etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nfunction:x:1000:1000:function:/tmp:/bin/sh\n'],
  ['etc/group', 'root:x:0:\nfunction:x:1000:\n'],
  ['etc/resolv.conf', 'nameserver 127.0.0.1\n'],
]);

/**
 * `above`: it lies above a base, which has those folders and files. Throws E_IMAGE_UNSAFE where a folder stands in the
 * place of a file that every clone has.
 */
export function planImage(nodes: ReadonlyMap<string, TreeNode>, above = false): Plan {
  const folders = new Map<string, { path: string; mode: number; mtime: number }>();
  const symlinks: { path: string; target: string; mtime: number }[] = [];
  const contents = new Map<number, Map<number, Content & { paths: string[] }>>();
  let bytes = 0;
  for (const path of [...nodes.keys()].sort()) {
    const node = nodes.get(path);
    // Links in the place of a mount point would have the agent work elsewhere.
    if (node === undefined || (FOLDERS.has(path) && node.kind !== 'folder')) continue;
    const { kind, mode, mtime, size, target } = node;
    if (IDENTITY.includes(path)) {
      if (kind === 'folder') throw unsafe(path, 'is a folder where every clone has a file');
    } else if (kind === 'folder') folders.set(path, { path, mode, mtime });
    else if (kind === 'symlink') symlinks.push({ path, target, mtime });
    else {
      const layer = contents.get(node.layer) ?? new Map<number, Content & { paths: string[] }>();
      contents.set(node.layer, layer);
      const content = layer.get(node.ordinal);
      if (content === undefined) {
        layer.set(node.ordinal, { paths: [path], mode, mtime, size });
        bytes += size;
      } else content.paths.push(path);
    }
  }
  const made: { path: string; content: Buffer }[] = [];
  if (!above) {
    for (const [path, mode] of FOLDERS) folders.set(path, { path, mode, mtime: folders.get(path)?.mtime ?? 0 });
    made.push(...IDENTITY.map((path) => ({ path, content: Buffer.alloc(0) })));
    for (const [path, text] of MADE_IF_MISSING) {
      if (!nodes.has(path)) made.push({ path, content: Buffer.from(text) });
    }
  }
  const sorted = [...folders.values()].sort((one, other) => (one.path < other.path ? -1 : 1));
  return { folders: sorted, symlinks, made, contents, bytes, entries: nodes.size };
}
