/** What the pages that a clone changed are for, and where they lie: by the kernel's own note of every page. */
import type { GuestKernel } from './kernel.ts';

export type PageKind = 'free' | 'kernel' | 'slab' | 'page table' | 'process' | 'file' | 'unknown';

export interface PageCensus {
  readonly kinds: Readonly<Record<PageKind, number>>;
  /** Changed pages in each MiB of the RAM image. */
  readonly heat: readonly number[];
}

const PAGES_PER_MIB = 256;
/** Of `page_type`: bits that are cleared for what the page is (include/linux/page-flags.h). */
const TYPE_BASE = 0xf0000000;
const [FREE, TABLE] = [0x80, 0x200];

export function censusOf(kernel: GuestKernel): PageCensus {
  const { memory } = kernel.space;
  const kinds: Record<PageKind, number> = {
    free: 0, kernel: 0, slab: 0, 'page table': 0, process: 0, file: 0, unknown: 0,
  };
  const heat = Array.from({ length: Math.ceil(memory.ramBytes / 1024 ** 2) }, () => 0);
  const pages = kernel.word(kernel.symbol('vmemmap_base'), 8);
  const size = BigInt(kernel.sizeOf('page'));
  const slab = kernel.btf.constant('PG_slab');
  for (const page of memory.changed.keys()) {
    const bin = Math.floor(page / PAGES_PER_MIB);
    heat[bin] = (heat[bin] ?? 0) + 1;
    const address = pages + BigInt(Math.floor(memory.addressOf(page) / 4096)) * size;
    kinds[kindOf(kernel, address, slab)] += 1;
  }
  return { kinds, heat };
}

function kindOf(kernel: GuestKernel, page: bigint, slab: bigint | undefined): PageKind {
  if (kernel.read(page, 64) === undefined) return 'unknown';
  const flags = kernel.number(page, 'page', 'flags');
  const type = Number(kernel.number(page, 'page', 'page_type'));
  const typed = type >= TYPE_BASE && type !== 0xffffffff;
  if (typed && (type & FREE) === 0) return 'free';
  if (typed && (type & TABLE) === 0) return 'page table';
  if (slab !== undefined && (flags >> slab) % 2n === 1n) return 'slab';
  const mapping = kernel.pointer(page, 'page', 'mapping');
  if ((mapping & 1n) === 1n) return 'process';
  return mapping === 0n ? 'kernel' : 'file';
}
