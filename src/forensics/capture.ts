/**
 * Takes a snapshot of a clone at its end: frozen, never resumed, its memory read by the host from the process that
 * held it, as difference against its template. What the run itself knows (event, code, log, connections, proof,
 * verdict) is put beside it. Everything that is needed is looked for before the clone is touched; what is missing
 * (space, mostly) is a reason to skip, never one to block the run or the node.
 */
import { open, rename, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { MachineMemory } from '../clone/vmm/contract.ts';
import { makeFolder, syncFolder, writeDurably } from '../core/files.ts';
import { canonicalJson } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Random } from '../core/random.ts';
import { isoTime } from '../core/time.ts';
import { encodeManifest } from './manifest.ts';
import type { RecordedSnapshot, SnapshotManifest } from './manifest.ts';
import { usedBytes } from './store.ts';
import { SealedWriter, tenantKey } from './vault.ts';
import type { SealedFile } from './vault.ts';

export interface CaptureOptions {
  /** MAYFLY_HOME */
  readonly home: string;
  readonly random: Random;
  readonly clock: { wallNanos(): bigint };
  readonly budgetBytes: number;
}

export interface CaptureOrder {
  readonly runId: string;
  readonly tenant: string;
  readonly because: string;
  readonly retentionDays: number;
  readonly kernel: string;
  /** Key of the template. */
  readonly template: string;
  readonly freeze: () => Promise<void>;
  readonly memory: MachineMemory;
  /** What the run knows, as JSON; buffers in base64. */
  readonly details: object;
}

const PAGE = 4096;

/** Never rejects. */
export async function captureSnapshot(options: CaptureOptions, order: CaptureOrder): Promise<RecordedSnapshot> {
  const { because } = order;
  const skipped = (reason: string): RecordedSnapshot => ({ kind: 'skipped', because, reason });
  const folder = join(options.home, 'forensics', 'snapshots');
  const half = join(folder, `${order.runId}.half`);
  try {
    await makeFolder(folder, 0o700);
    const missing = await missingSpace(options, folder);
    if (missing !== undefined) return skipped(missing);
    await order.freeze();
    await rm(half, { recursive: true, force: true });
    await makeFolder(half, 0o700);
    const { digest, bytes } = await writeSnapshot(options, order, half);
    await rename(half, join(folder, order.runId));
    await syncFolder(folder);
    return { kind: 'kept', manifest: digest, bytes, because };
  } catch (thrown) {
    await rm(half, { recursive: true, force: true }).catch(() => {});
    const { code, message } = thrown as NodeJS.ErrnoException;
    return skipped(code === 'ENOSPC' || code === 'EDQUOT' ? 'the disk is full' : message.slice(0, 300));
  }
}

async function missingSpace({ home, budgetBytes }: CaptureOptions, folder: string): Promise<string | undefined> {
  const { bavail, bsize } = await statfs(folder);
  const mebibytes = (bytes: number): string => `${Math.round(bytes / 1024 ** 2)} MiB`;
  const free = bavail * bsize;
  const needed = limits.snapshotEstimateBytes + limits.snapshotFloorBytes;
  if (free < needed) return `there are ${mebibytes(free)} free, and ${mebibytes(needed)} are needed`;
  const used = await usedBytes(home);
  if (used + limits.snapshotEstimateBytes <= budgetBytes) return undefined;
  return `snapshots have ${mebibytes(used)} of their ${mebibytes(budgetBytes)}`;
}

async function writeSnapshot(
  options: CaptureOptions,
  order: CaptureOrder,
  folder: string,
): Promise<{ readonly digest: string; readonly bytes: number }> {
  const { runId, tenant, memory } = order;
  const key = await tenantKey(options.home, tenant, options.random);
  const budget = { left: options.budgetBytes };
  let changedPages = 0;
  const pages = await writeFile(folder, 'memory', key, `${runId} memory`, async (writer) => {
    for await (const { numbers, bytes } of memory.changed()) {
      changedPages += numbers.length;
      budget.left -= bytes.length;
      if (budget.left < 0) throw new Error('the changed memory is larger than all that snapshots may have');
      await writer.write(encodePages(numbers, bytes));
    }
  });
  const registers = await memory.registers();
  const details = await writeFile(folder, 'details', key, `${runId} details`, async (writer) => {
    await writer.write(Buffer.from(canonicalJson({ ...order.details, registers })));
  });
  await keepBase(options, order);
  const now = options.clock.wallNanos();
  const manifest: SnapshotManifest = {
    snapshotVersion: 1, runId, tenant, changedPages,
    takenAt: isoTime(now), expiresAt: isoTime(now + BigInt(order.retentionDays) * 86_400_000_000_000n),
    because: order.because, kernel: order.kernel, template: order.template, ramBytes: memory.ramBytes,
    files: [pages, details],
  };
  const { bytes, digest } = encodeManifest(manifest);
  await writeDurably(join(folder, 'manifest.json'), bytes, 0o600);
  return { digest, bytes: pages.bytes + details.bytes + bytes.length };
}

async function writeFile(
  folder: string,
  name: string,
  key: Buffer,
  label: string,
  fill: (writer: SealedWriter) => Promise<void>,
): Promise<SealedFile> {
  const writer = await SealedWriter.create(folder, name, key, label);
  try {
    await fill(writer);
    return await writer.end();
  } catch (thrown) {
    await writer.abandon();
    throw thrown;
  }
}

/** `u32 count`, the numbers as u32, the pages. */
function encodePages(numbers: Uint32Array, bytes: Buffer): Buffer {
  const head = Buffer.alloc(4 + numbers.length * 4);
  head.writeUInt32LE(numbers.length, 0);
  numbers.forEach((number, index) => { head.writeUInt32LE(number, 4 + index * 4); });
  return Buffer.concat([head, bytes]);
}

/** Calls with each page of a piece. Throws RangeError when it is none. */
export function decodePages(piece: Buffer, each: (number: number, page: Buffer) => void): void {
  const count = piece.readUInt32LE(0);
  const start = 4 + count * 4;
  if (piece.length !== start + count * PAGE) throw new RangeError('a piece of memory has another length');
  for (let index = 0; index < count; index++) {
    each(piece.readUInt32LE(4 + index * 4), piece.subarray(start + index * PAGE, start + (index + 1) * PAGE));
  }
}

/** Key of what is nobody's: a template has no event in it. */
export const BASE_TENANT = 'templates';

/**
 * The memory of the template, kept once for all snapshots of its clones: a template may be removed at any time. Only
 * the first snapshot of a template pays for it.
 */
async function keepBase({ home, random }: CaptureOptions, { template, memory }: CaptureOrder): Promise<void> {
  const bases = join(home, 'forensics', 'bases');
  await makeFolder(bases, 0o700);
  const known = await open(join(bases, template), 'r').catch(() => undefined);
  if (known !== undefined) return await known.close();
  const key = await tenantKey(home, BASE_TENANT, random);
  const half = `half-${random.bytes(8).toString('hex')}`;
  try {
    await writeFile(bases, half, key, `base ${template}`, async (writer) => {
      const file = await open(memory.base, 'r');
      try {
        for await (const { numbers, bytes } of filledPages(file, memory.ramBytes)) {
          await writer.write(encodePages(numbers, bytes));
        }
      } finally {
        await file.close();
      }
    });
    await rename(join(bases, half), join(bases, template));
  } finally {
    await rm(join(bases, half), { force: true });
  }
}

/** Pages that are not all zeros. */
async function* filledPages(file: Awaited<ReturnType<typeof open>>, ramBytes: number): AsyncGenerator<{
  readonly numbers: Uint32Array;
  readonly bytes: Buffer;
}> {
  const zeros = Buffer.alloc(PAGE);
  const step = limits.snapshotPiecePages * PAGE;
  for (let at = 0; at < ramBytes; at += step) {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(step), 0, step, at);
    const filled: number[] = [];
    for (let page = 0; page < bytesRead / PAGE; page++) {
      if (!zeros.equals(buffer.subarray(page * PAGE, (page + 1) * PAGE))) filled.push(page);
    }
    if (filled.length === 0) continue;
    yield {
      numbers: Uint32Array.from(filled, (page) => at / PAGE + page),
      bytes: Buffer.concat(filled.map((page) => buffer.subarray(page * PAGE, (page + 1) * PAGE))),
    };
  }
}
