/** Evidence as it stands on the disk, for those who list, show and verify it: read line by line, never as a whole. */
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { limits } from '../core/limits.ts';
import type { PublicKeys } from '../image/envelope.ts';
import { ChainVerifier, isObjectIntact } from './chain.ts';
import type { ChainCheck } from './chain.ts';
import { hashOfLine } from './record.ts';
import type { EvidenceRecord } from './record.ts';
import { EVIDENCE_FILE, HEAD_FILE, objectPath } from './seal.ts';

export interface EvidenceSource {
  readonly disk: Disk;
  /** MAYFLY_HOME/evidence */
  readonly folder: string;
}

export interface VerifyEvidence extends EvidenceSource {
  readonly keys: PublicKeys;
  readonly witness?: string;
}

/** Rejects with ENOENT when there is no evidence yet. */
export async function verifyEvidence({ disk, folder, keys, witness }: VerifyEvidence): Promise<ChainCheck> {
  const head = await disk.read(join(folder, HEAD_FILE), limits.evidenceHeadBytesMax).then(String, () => undefined);
  const verifier = new ChainVerifier({
    keys, ...(witness === undefined ? {} : { witness }), ...(head === undefined ? {} : { head }),
  });
  let torn = false;
  for await (const { line, whole } of evidenceLines({ disk, folder })) {
    if (whole) verifier.push(line);
    else torn = true;
    if (verifier.broken !== undefined) break;
  }
  for (const [digest, line] of verifier.broken === undefined ? verifier.objects : []) {
    if (isObjectIntact(digest, await readObject({ disk, folder }, digest))) continue;
    return { ok: false, line, reason: `the object ${digest} that it refers to is missing or was changed` };
  }
  return verifier.end(torn);
}

export interface StoredRecord {
  readonly record: EvidenceRecord;
  readonly hash: string;
}

/** The records, oldest first; what is not one is left out: `verifyEvidence` says so. */
export async function* evidenceRecords(source: EvidenceSource): AsyncGenerator<StoredRecord> {
  for await (const { line, whole } of evidenceLines(source)) {
    if (!whole) continue;
    try {
      yield { record: JSON.parse(line) as EvidenceRecord, hash: hashOfLine(line) };
    } catch {
      // Not a record.
    }
  }
}

/** An object that a record refers to; undefined when it is not there. */
export async function readObject({ disk, folder }: EvidenceSource, digest: string): Promise<Buffer | undefined> {
  return await disk.read(objectPath(folder, digest), limits.evidenceRecordBytesMax).catch(() => undefined);
}

interface Line {
  readonly line: string;
  /** It ends in a newline. */
  readonly whole: boolean;
}

/** A line that is longer than any record can be ends the reading as one that is not whole. */
async function* evidenceLines({ disk, folder }: EvidenceSource): AsyncGenerator<Line> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of disk.chunks(join(folder, EVIDENCE_FILE))) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(0x0a); end !== -1; end = rest.indexOf(0x0a)) {
      yield { line: rest.toString('utf8', 0, end), whole: true };
      rest = rest.subarray(end + 1);
    }
    if (rest.length > limits.evidenceRecordBytesMax) break;
  }
  if (rest.length > 0) yield { line: rest.toString('utf8'), whole: false };
}
