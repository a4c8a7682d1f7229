/**
 * Mounts of a guest, and every file that it could write: the one tmpfs that holds the overlay's changes, /tmp and the
 * function. Their content is in memory, so it is read there, page by page, and no agent is asked.
 */
import { digestOf, printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import type { GuestKernel } from './kernel.ts';
import { nameOf } from './paths.ts';

export interface GuestMount {
  readonly device: string;
  readonly type: string;
  readonly path: string;
  readonly superblock: bigint;
}

/** As the process with that task sees them; `task` 0 is the agent's. */
export function listMounts(kernel: GuestKernel): GuestMount[] {
  const head = kernel.symbol('init_task') + BigInt(kernel.field('task_struct', 'tasks').offset);
  const spaces = new Set<bigint>();
  const found: GuestMount[] = [];
  for (const task of kernel.list(head, 'task_struct', 'tasks', limits.guestProcessesMax)) {
    const proxy = kernel.pointer(task, 'task_struct', 'nsproxy');
    const space = proxy === 0n ? 0n : kernel.pointer(proxy, 'nsproxy', 'mnt_ns');
    if (space === 0n || spaces.has(space)) continue;
    spaces.add(space);
    for (const mount of mountsOf(kernel, space)) {
      const superblock = kernel.pointer(mount, 'mount', 'mnt.mnt_sb');
      const type = kernel.pointer(superblock, 'super_block', 's_type');
      found.push({
        superblock,
        device: printableLine(kernel.text(kernel.pointer(mount, 'mount', 'mnt_devname'), 100), 100),
        type: printableLine(kernel.text(kernel.pointer(type, 'file_system_type', 'name'), 40), 40),
        path: mountPath(kernel, mount),
      });
    }
  }
  return found.slice(0, limits.guestMountsMax);
}

/** A list until 6.7, a tree since. */
function mountsOf(kernel: GuestKernel, space: bigint): bigint[] {
  if (kernel.has('mnt_namespace', 'list')) {
    const head = space + BigInt(kernel.field('mnt_namespace', 'list').offset);
    return [...kernel.list(head, 'mount', 'mnt_list', limits.guestMountsMax)];
  }
  const offset = BigInt(kernel.field('mount', 'mnt_node').offset);
  const open = [kernel.pointer(space, 'mnt_namespace', 'mounts.rb_node')];
  const found: bigint[] = [];
  for (let node = open.pop(); node !== undefined && found.length < limits.guestMountsMax; node = open.pop()) {
    if (node === 0n) continue;
    found.push(node - offset);
    open.push(kernel.pointer(node, 'rb_node', 'rb_left'), kernel.pointer(node, 'rb_node', 'rb_right'));
  }
  return found;
}

function mountPath(kernel: GuestKernel, mount: bigint): string {
  const parts: string[] = [];
  let at = mount;
  for (let step = 0; step < limits.guestPathPartsMax; step++) {
    const above = kernel.pointer(at, 'mount', 'mnt_parent');
    if (above === 0n || above === at) break;
    let dentry = kernel.pointer(at, 'mount', 'mnt_mountpoint');
    for (let depth = 0; depth < limits.guestPathPartsMax; depth++) {
      const parent = kernel.pointer(dentry, 'dentry', 'd_parent');
      if (parent === dentry || parent === 0n) break;
      parts.unshift(nameOf(kernel, dentry));
      dentry = parent;
    }
    at = above;
  }
  return `/${parts.join('/')}`;
}

export interface GuestFile {
  /** As the function named it. */
  readonly path: string;
  readonly kind: 'file' | 'folder' | 'link' | 'other';
  readonly mode: number;
  readonly uid: number;
  readonly bytes: number;
  /** Unix time of the last change, ms, by the guest's clock. */
  readonly changedMillis: number;
  readonly inode: number;
  /** Of files up to `guestFileBytesMax`. */
  readonly content: Buffer | undefined;
  readonly digest: string | undefined;
}

/** Folders of the scratch file system, and where the function sees them. */
const SEEN_AS: readonly (readonly [string, string])[] = [
  ['/upper', ''], ['/tmp', '/tmp'], ['/shm', '/dev/shm'], ['/function', '/function'],
];

export function listFiles(kernel: GuestKernel, mounts: readonly GuestMount[]): GuestFile[] {
  const scratch = mounts.find(({ device, type }) => device === 'scratch' && type === 'tmpfs');
  if (scratch === undefined) return [];
  const files: GuestFile[] = [];
  const seen = new Set<bigint>();
  const open = [{ dentry: kernel.pointer(scratch.superblock, 'super_block', 's_root'), path: '' }];
  const budget = { bytes: limits.guestContentBytesMax };
  for (let next = open.pop(); next !== undefined && files.length < limits.guestFilesMax; next = open.pop()) {
    for (const dentry of children(kernel, next.dentry)) {
      if (seen.has(dentry)) continue;
      seen.add(dentry);
      const path = `${next.path}/${nameOf(kernel, dentry)}`;
      open.push({ dentry, path });
      const shown = visiblePath(path);
      if (shown !== undefined) files.push(describe(kernel, dentry, shown, budget));
    }
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function visiblePath(path: string): string | undefined {
  for (const [inside, outside] of SEEN_AS) {
    if (path.startsWith(`${inside}/`)) return outside + path.slice(inside.length);
  }
  return undefined;
}

/** A list until 6.7, a list with one end since. */
function children(kernel: GuestKernel, dentry: bigint): bigint[] {
  if (kernel.has('dentry', 'd_subdirs')) {
    const head = dentry + BigInt(kernel.field('dentry', 'd_subdirs').offset);
    return [...kernel.list(head, 'dentry', 'd_child', limits.guestFilesMax)];
  }
  const offset = BigInt(kernel.field('dentry', 'd_sib').offset);
  const found: bigint[] = [];
  let node = kernel.pointer(dentry, 'dentry', 'd_children.first');
  while (node !== 0n && found.length < limits.guestFilesMax) {
    found.push(node - offset);
    node = kernel.pointer(node, 'hlist_node', 'next');
  }
  return found;
}

/** By the upper bits of their mode. */
const KINDS: ReadonlyMap<number, GuestFile['kind']> = new Map([[0o10, 'file'], [0o04, 'folder'], [0o12, 'link']]);

function describe(kernel: GuestKernel, dentry: bigint, path: string, budget: { bytes: number }): GuestFile {
  const inode = kernel.pointer(dentry, 'dentry', 'd_inode');
  const mode = Number(kernel.number(inode, 'inode', 'i_mode'));
  const bytes = Number(kernel.number(inode, 'inode', 'i_size'));
  const kind = inode === 0n ? 'other' : (KINDS.get(mode >> 12) ?? 'other');
  const wanted = kind === 'file' && bytes <= Math.min(limits.guestFileBytesMax, budget.bytes);
  const content = wanted ? contentOf(kernel, inode, bytes) : undefined;
  budget.bytes -= content?.length ?? 0;
  return {
    path, kind, bytes, mode: mode & 0o7777,
    uid: Number(kernel.number(inode, 'inode', 'i_uid.val')),
    changedMillis: changedAt(kernel, inode),
    inode: Number(kernel.number(inode, 'inode', 'i_ino')),
    content,
    digest: content === undefined ? undefined : digestOf(content),
  };
}

function changedAt(kernel: GuestKernel, inode: bigint): number {
  const name = ['i_mtime', '__i_mtime'].find((each) => kernel.has('inode', each));
  const [seconds, nanos] = name === undefined
    ? [kernel.number(inode, 'inode', 'i_mtime_sec'), kernel.number(inode, 'inode', 'i_mtime_nsec')]
    : [kernel.number(inode, 'inode', `${name}.tv_sec`), kernel.number(inode, 'inode', `${name}.tv_nsec`)];
  return Number(seconds) * 1000 + Math.floor(Number(nanos) / 1e6);
}

/** The pages of a file are in a tree of 64-fold branches (lib/xarray.c); what is in no page is zeros. */
function contentOf(kernel: GuestKernel, inode: bigint, bytes: number): Buffer {
  const content = Buffer.alloc(bytes);
  const mapping = kernel.pointer(inode, 'inode', 'i_mapping');
  const head = kernel.pointer(mapping, 'address_space', 'i_pages.xa_head');
  const pageSize = BigInt(kernel.sizeOf('page'));
  const pages = kernel.word(kernel.symbol('vmemmap_base'), 8);
  const put = (entry: bigint, index: number): void => {
    if (entry < pages || index * 4096 >= bytes) return;
    const physical = Number((entry - pages) / pageSize) * 4096;
    kernel.space.memory.readPhysical(physical, 4096)?.copy(content, index * 4096, 0, bytes - index * 4096);
  };
  const visit = (entry: bigint, index: number, depth: number): void => {
    if (entry === 0n || depth > 6 || index * 4096 >= bytes) return;
    // Inner nodes are marked with a 2 in their lowest bits; small numbers with that mark mean a neighbour.
    if ((entry & 3n) !== 2n || entry < 4096n) return (entry & 3n) === 0n ? put(entry, index) : undefined;
    const node = entry - 2n;
    const shift = Number(kernel.number(node, 'xa_node', 'shift'));
    const slots = kernel.read(node + BigInt(kernel.field('xa_node', 'slots').offset), 64 * 8);
    if (slots === undefined || shift > 36) return;
    for (let slot = 0; slot < 64; slot++) visit(slots.readBigUInt64LE(slot * 8), index + slot * 2 ** shift, depth + 1);
  };
  visit(head, 0, 0);
  return content;
}
