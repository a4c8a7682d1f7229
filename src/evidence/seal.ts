/**
 * Appends a record to MAYFLY_HOME/evidence/evidence.jsonl: under a lock, so that runs of several processes form one
 * chain, and on the medium before anyone is told that the run is over.
 *
 * Profile, reasons, facts and connections stand beside it in `objects/`, by digest: they are the same for many events.
 *
 * A crash can tear the last line. It was acknowledged to nobody, so the next writer cuts it off; the run that it
 * belonged to still has its journal and is sealed by reclaim.
 */
import { dirname, join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { asMayflyError, MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { isoTime } from '../core/time.ts';
import { canonicalJson } from '../core/json.ts';
import type { Signer } from '../image/envelope.ts';
import { chainStart, hashOfLine, makeHead, makeRecord } from './record.ts';
import type { ChainPlace, EvidenceDraft, EvidenceObjects, EvidenceRecord, SealedEvidence } from './record.ts';

export interface SealOptions {
  readonly disk: Disk;
  readonly clock: { wallNanos(): bigint };
  /** This machine's key. */
  readonly signer: Signer;
  /** MAYFLY_HOME/evidence */
  readonly folder: string;
}

export const EVIDENCE_FILE = 'evidence.jsonl';
export const HEAD_FILE = 'head.json';

/** Where an object stands below MAYFLY_HOME/evidence. */
export function objectPath(folder: string, digest: string): string {
  const hex = digest.slice('sha256:'.length);
  return join(folder, 'objects', hex.slice(0, 2), hex);
}

/** Rejects with E_EVIDENCE_WRITE; then nothing was acknowledged, and a torn line may be left for the next writer. */
export async function sealEvidence(options: SealOptions, draft: EvidenceDraft): Promise<SealedEvidence> {
  const { disk, clock, folder, signer } = options;
  const path = join(folder, EVIDENCE_FILE);
  try {
    await disk.makeFolder(folder);
    const unlock = await disk.lock(join(folder, 'lock'), limits.evidenceLockMillisMax);
    try {
      const place = await endOfChain(disk, path);
      const { record, line, objects } = makeRecord(draft, place, isoTime(clock.wallNanos()), signer);
      if (line.length > limits.evidenceRecordBytesMax) throw new Error(`a record of ${line.length} bytes is too long`);
      await writeObjects(options, objects);
      await disk.append(path, Buffer.from(`${line}\n`), { sync: true });
      const hash = hashOfLine(line);
      // Behind the chain for a moment, never ahead of it: what a crash here leaves is no alarm.
      const head = canonicalJson(makeHead(place.sequence, hash, signer));
      await disk.replace(join(folder, HEAD_FILE), Buffer.from(head), { sync: false }).catch(() => {});
      return { record, hash };
    } finally {
      await unlock();
    }
  } catch (thrown) {
    throw new MayflyError('E_EVIDENCE_WRITE', `${path}: ${asMayflyError(thrown).message}`, { cause: thrown });
  }
}

/** On the medium before the record that refers to them. What is there already is not written again. */
async function writeObjects({ disk, folder }: SealOptions, objects: EvidenceObjects): Promise<void> {
  for (const [digest, bytes] of objects) {
    const path = objectPath(folder, digest);
    if (await disk.exists(path)) continue;
    await disk.makeFolder(dirname(path));
    await disk.replace(path, bytes, { sync: true });
  }
}

/** Where the next record belongs. The lock must be held. */
async function endOfChain(disk: Disk, path: string): Promise<ChainPlace> {
  // Two records' worth: a torn last line and the whole one before it.
  const { size, bytes } = await disk.tail(path, 2 * limits.evidenceRecordBytesMax);
  const end = bytes.lastIndexOf(0x0a) + 1;
  const start = end < 2 ? 0 : bytes.lastIndexOf(0x0a, end - 2) + 1;
  if (start === 0 && bytes.length < size) throw new Error('its last record is longer than any record can be');
  if (end < bytes.length) await disk.truncate(path, size - (bytes.length - end));
  if (end === 0) return { sequence: 0, previous: chainStart };
  const line = bytes.toString('utf8', start, end - 1);
  const { sequence } = JSON.parse(line) as EvidenceRecord;
  if (!Number.isSafeInteger(sequence)) throw new Error('its last line is not an evidence record');
  return { sequence: sequence + 1, previous: hashOfLine(line) };
}

/** The run has a record already: asked by reclaim, which may come after a crash between the record and the journal. */
export async function hasEvidence(disk: Disk, folder: string, runId: string): Promise<boolean> {
  const { bytes } = await disk.tail(join(folder, EVIDENCE_FILE), limits.evidenceSearchBytesMax);
  return bytes.includes(`"runId":"${runId}"`);
}
