/**
 * A guest's memory as an ELF core file, as `dump-guest-memory` of QEMU with `paging=false` writes one: a segment for
 * each piece of RAM, by its physical address. Volatility, crash and gdb open it. Sparse: what is zeros takes no space.
 */
import { open } from 'node:fs/promises';
import { PAGE } from './guest/memory.ts';
import type { GuestMemory } from './guest/memory.ts';

const EHDR_BYTES = 64;
const PHDR_BYTES = 56;
const [ET_CORE, EM_X86_64, PT_LOAD, PT_NOTE] = [4, 62, 1, 4];

/** Rejects as the disk does. */
export async function writeCore(path: string, memory: GuestMemory, note: string): Promise<void> {
  const { segments } = memory;
  const notes = noteOf('MAYFLY', Buffer.from(`${note}\0`));
  const notesAt = EHDR_BYTES + PHDR_BYTES * (segments.length + 1);
  const start = Math.ceil((notesAt + notes.length) / PAGE) * PAGE;
  const head = Buffer.alloc(start);
  Buffer.from('7f454c46020101', 'hex').copy(head);
  head.writeUInt16LE(ET_CORE, 16);
  head.writeUInt16LE(EM_X86_64, 18);
  head.writeUInt32LE(1, 20);
  head.writeBigUInt64LE(BigInt(EHDR_BYTES), 32);
  head.writeUInt16LE(EHDR_BYTES, 52);
  head.writeUInt16LE(PHDR_BYTES, 54);
  head.writeUInt16LE(segments.length + 1, 56);
  program(head, 0, { type: PT_NOTE, at: notesAt, physical: 0, bytes: notes.length });
  segments.forEach(({ physical, bytes, offset }, index) => {
    program(head, index + 1, { type: PT_LOAD, at: start + offset, physical, bytes });
  });
  notes.copy(head, notesAt);
  const file = await open(path, 'wx', 0o600);
  try {
    await file.write(head, 0, head.length, 0);
    for (const page of new Set([...memory.base.keys(), ...memory.changed.keys()])) {
      await file.write(memory.page(page), 0, PAGE, start + page * PAGE);
    }
    await file.truncate(start + memory.ramBytes);
  } finally {
    await file.close();
  }
}

interface Program {
  readonly type: number;
  readonly at: number;
  readonly physical: number;
  readonly bytes: number;
}

function program(head: Buffer, index: number, { type, at, physical, bytes }: Program): void {
  const place = EHDR_BYTES + PHDR_BYTES * index;
  head.writeUInt32LE(type, place);
  head.writeBigUInt64LE(BigInt(at), place + 8);
  head.writeBigUInt64LE(0n, place + 16);
  head.writeBigUInt64LE(BigInt(physical), place + 24);
  head.writeBigUInt64LE(BigInt(bytes), place + 32);
  head.writeBigUInt64LE(BigInt(bytes), place + 40);
}

function noteOf(owner: string, content: Buffer): Buffer {
  const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
  const name = Buffer.from(`${owner}\0`);
  const head = Buffer.alloc(12);
  head.writeUInt32LE(name.length, 0);
  head.writeUInt32LE(content.length, 4);
  head.writeUInt32LE(1, 8);
  return Buffer.concat([head, padded(name), padded(content)]);
}
