/** Names of files in a guest: directory entries up to the root of their mount, and the mount's place above that. */
import { printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import type { GuestKernel } from './kernel.ts';

/** `path`: address of a `struct path`. */
export function pathOf(kernel: GuestKernel, path: bigint): string {
  const mount = kernel.pointer(path, 'path', 'mnt');
  const dentry = kernel.pointer(path, 'path', 'dentry');
  const parts: string[] = [];
  // `struct mount` holds the `struct vfsmount` that paths point to.
  let at = { dentry, mount: mount - BigInt(kernel.field('mount', 'mnt').offset) };
  for (let step = 0; step < limits.guestPathPartsMax; step++) {
    const parent = kernel.pointer(at.dentry, 'dentry', 'd_parent');
    if (parent !== at.dentry && parent !== 0n) {
      parts.unshift(nameOf(kernel, at.dentry));
      at = { ...at, dentry: parent };
      continue;
    }
    const above = mount === 0n ? 0n : kernel.pointer(at.mount, 'mount', 'mnt_parent');
    // Pipes, sockets and the like have a name and no place.
    if (parts.length === 0 && (above === at.mount || above === 0n)) return special(kernel, dentry);
    if (above === 0n || above === at.mount) break;
    at = { dentry: kernel.pointer(at.mount, 'mount', 'mnt_mountpoint'), mount: above };
  }
  return `/${parts.filter((part) => part !== '/').join('/')}`;
}

export function nameOf(kernel: GuestKernel, dentry: bigint): string {
  const length = Number(kernel.number(dentry, 'dentry', 'd_name.len'));
  const address = kernel.pointer(dentry, 'dentry', 'd_name.name');
  return printableLine(kernel.text(address, Math.min(Math.max(length, 1), 255)), 255);
}

function special(kernel: GuestKernel, dentry: bigint): string {
  const name = nameOf(kernel, dentry);
  const inode = kernel.pointer(dentry, 'dentry', 'd_inode');
  const kind = Number(kernel.number(inode, 'inode', 'i_mode')) & 0o170000;
  const number = kernel.number(inode, 'inode', 'i_ino');
  if (kind === 0o140000) return `socket:[${number}]`;
  if (kind === 0o010000) return `pipe:[${number}]`;
  return name === '' || name === '/' ? `[${number}]` : name;
}
