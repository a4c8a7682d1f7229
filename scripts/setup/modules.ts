/** Kernel modules of the guest: which ones, and in which order they can be loaded. */

/** Without these there is no bridge and no file system. */
export const bootModules = ['virtio_pci', 'virtio_console', 'virtio_blk', 'erofs', 'squashfs', 'overlay'] as const;

/** What sends all network traffic of the guest to its agent (guest/agent/net.c). */
export const networkModules = [
  'nf_tables', 'nft_tproxy', 'nft_queue', 'nfnetlink_queue', 'nft_reject_ipv4',
] as const;

/** Names of the modules that a module needs, from its `.modinfo` section. */
export function dependenciesOf(module: Buffer): string[] {
  const found = /(?:^|\0)depends=([^\0]*)\0/.exec(module.toString('latin1'));
  return (found?.[1] ?? '').split(',').filter((name) => name !== '');
}

/** Wanted modules and all they need, each after what it needs. `needs` throws for a module that does not exist. */
export function loadOrder(wanted: readonly string[], needs: (name: string) => readonly string[]): string[] {
  const order: string[] = [];
  const open = new Set<string>();
  const visit = (name: string): void => {
    if (order.includes(name)) return;
    if (open.has(name)) throw new Error(`kernel module ${name} needs itself`);
    open.add(name);
    needs(name).forEach(visit);
    order.push(name);
  };
  wanted.forEach(visit);
  return order;
}
