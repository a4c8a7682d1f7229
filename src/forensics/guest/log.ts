/**
 * The kernel's log of a guest, from its ring of descriptors and its ring of texts (kernel/printk/printk_ringbuffer.c).
 */
import { printableLine } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import type { GuestKernel } from './kernel.ts';

export interface LogLine {
  /** Since the boot of the template. */
  readonly nanos: bigint;
  readonly text: string;
}

export function kernelLog(kernel: GuestKernel): LogLine[] {
  const ring = kernel.word(kernel.symbol('prb'), 8);
  const at = (path: string): bigint => ring + BigInt(kernel.field('printk_ringbuffer', path).offset);
  const countBits = Number(kernel.word(at('desc_ring.count_bits'), 4));
  const sizeBits = Number(kernel.word(at('text_data_ring.size_bits'), 4));
  if (countBits > 24 || sizeBits > 30) return [];
  const [descriptors, infos] = [kernel.word(at('desc_ring.descs'), 8), kernel.word(at('desc_ring.infos'), 8)];
  const data = kernel.word(at('text_data_ring.data'), 8);
  const head = kernel.word(at('desc_ring.head_id'), 8) & ID_MASK;
  const tail = kernel.word(at('desc_ring.tail_id'), 8) & ID_MASK;
  const lines: LogLine[] = [];
  // No ring has more than its descriptors.
  if (head - tail > 1n << BigInt(countBits)) return [];
  for (let id = tail; id <= head && lines.length < limits.guestLogLinesMax; id++) {
    const index = id & ((1n << BigInt(countBits)) - 1n);
    const descriptor = descriptors + index * BigInt(kernel.sizeOf('prb_desc'));
    const info = infos + index * BigInt(kernel.sizeOf('printk_info'));
    const length = Number(kernel.number(info, 'printk_info', 'text_len'));
    const begin = kernel.number(descriptor, 'prb_desc', 'text_blk_lpos.begin') & ((1n << BigInt(sizeBits)) - 1n);
    // Each text follows the number of its descriptor.
    const text = kernel.read(data + begin + 8n, Math.min(length, 1024));
    if (text === undefined) continue;
    const nanos = kernel.number(info, 'printk_info', 'ts_nsec');
    lines.push({ nanos, text: printableLine(text.toString('utf8'), 1000) });
  }
  return lines;
}

/** The two upper bits of an id are a state. */
const ID_MASK = (1n << 62n) - 1n;
