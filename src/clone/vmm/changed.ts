/**
 * The memory of a stopped machine, as far as it differs from its template. The VMM maps the template's RAM privately,
 * so the kernel itself knows which pages are not the file's any more: /proc/PID/pagemap says it, /proc/PID/mem has
 * them. The guest is not asked, and the VMM neither.
 */
import { open, readFile } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { limits } from '../../core/limits.ts';
import type { ChangedPages } from './contract.ts';

const PAGE = 4096;
/** Flags of an entry of pagemap, in its upper half: page present, swapped out, of a file or shared. */
const PRESENT = 0x80000000;
const SWAPPED = 0x40000000;
const OF_FILE = 0x20000000;

/** Rejects with Error when the process cannot be looked at: it is gone, or this process may not. */
export async function* readChangedPages(pid: number, ram: string, ramBytes: number): AsyncGenerator<ChangedPages> {
  const from = await mappedAt(pid, ram, ramBytes);
  const pages = await changedPages(pid, from, ramBytes / PAGE);
  const memory = await open(`/proc/${pid}/mem`, 'r');
  try {
    for (let at = 0; at < pages.length; at += limits.snapshotPiecePages) {
      const numbers = pages.subarray(at, at + limits.snapshotPiecePages);
      yield { numbers, bytes: await readPages(memory, from, numbers) };
    }
  } finally {
    await memory.close();
  }
}

/** Where the RAM begins in the process. Its own path can be a link's, so the size must fit as well. */
async function mappedAt(pid: number, ram: string, ramBytes: number): Promise<bigint> {
  for (const line of (await readFile(`/proc/${pid}/maps`, 'latin1')).split('\n')) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) .{4} ([0-9a-f]+) \S+ \d+ +(\S.*)$/.exec(line);
    if (match === null || match[4] !== ram) continue;
    const [start, end] = [BigInt(`0x${match[1]}`), BigInt(`0x${match[2]}`)];
    if (Number(end - start) === ramBytes && match[3] === '00000000') return start;
  }
  throw new Error(`process ${pid} has not mapped ${ram}`);
}

async function changedPages(pid: number, from: bigint, count: number): Promise<Uint32Array> {
  const entries = Buffer.alloc(count * 8);
  const pagemap = await open(`/proc/${pid}/pagemap`, 'r');
  try {
    const start = Number(from / BigInt(PAGE)) * 8;
    for (let at = 0; at < entries.length;) {
      const { bytesRead } = await pagemap.read(entries, at, entries.length - at, start + at);
      if (bytesRead === 0) throw new Error(`the pagemap of process ${pid} ends too early`);
      at += bytesRead;
    }
  } finally {
    await pagemap.close();
  }
  const flags = new Uint32Array(entries.buffer, entries.byteOffset, count * 2);
  const changed = new Uint32Array(count);
  let found = 0;
  for (let page = 0; page < count; page++) {
    const upper = flags[page * 2 + 1] as number;
    if ((upper & (PRESENT | SWAPPED)) !== 0 && (upper & OF_FILE) === 0) changed[found++] = page;
  }
  return changed.subarray(0, found);
}

/** Neighbours in one read. */
async function readPages(memory: FileHandle, from: bigint, numbers: Uint32Array): Promise<Buffer> {
  const bytes = Buffer.alloc(numbers.length * PAGE);
  for (let at = 0; at < numbers.length;) {
    const first = numbers[at] as number;
    let run = 1;
    while (numbers[at + run] === first + run) run += 1;
    const place = Number(from) + first * PAGE;
    const { bytesRead } = await memory.read(bytes, at * PAGE, run * PAGE, place);
    if (bytesRead !== run * PAGE) throw new Error('the memory of the VMM could not be read');
    at += run;
  }
  return bytes;
}
