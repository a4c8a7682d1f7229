/** `mayfly evidence list|show|verify`: what was run here, and whether the record of it is whole. */
import { join } from 'node:path';
import { exitCodes, MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { evidenceRecords, readObject, verifyEvidence } from '../evidence/read.ts';
import type { EvidenceSource, StoredRecord } from '../evidence/read.ts';
import { objectsOf } from '../evidence/record.ts';
import type { RecordedVerdict } from '../evidence/record.ts';
import { readFileAtMost } from './input.ts';
import { paint, printJson } from './io.ts';
import type { Io } from './io.ts';
import { table } from './list.ts';
import { formatMillis } from './units.ts';

export interface VerifyOptions {
  readonly witness?: string;
  readonly key?: string;
  readonly json?: boolean;
}

/** Exit 0 when the chain holds, 5 when a record was edited, removed, reordered or not signed here. */
export async function verify(io: Io, { json, witness, key }: VerifyOptions): Promise<number> {
  const app = await io.openApp();
  const pem = key === undefined ? undefined : await keyFile(io, key);
  const source = await app.evidence(pem === undefined ? undefined : { pem, from: key ?? '' });
  const path = join(source.folder, 'evidence.jsonl');
  const check = await explained(path, verifyEvidence({ ...source, ...(witness === undefined ? {} : { witness }) }));
  const colours = paint(io.colour);
  if (json === true) printJson(io, { path, ...check });
  else if (check.ok) {
    const unsigned = check.unsigned === 0 ? '' : `, ${check.unsigned} of them unsigned (version 1)`;
    io.out(`${colours.green('intact')}  ${check.records} records${unsigned}, head ${check.head}\n`);
  } else {
    const run = check.runId === undefined ? '' : ` (run ${check.runId})`;
    io.out(`${colours.red('BROKEN')}  ${path}, line ${check.line}${run}: ${check.reason}\n`);
  }
  return check.ok ? exitCodes.ok : exitCodes.violation;
}

async function keyFile(io: Io, path: string): Promise<Buffer> {
  const bytesMax = limits.imageSmallFileBytesMax;
  return await readFileAtMost(path, { bytesMax, signal: io.signal }).catch((cause: unknown) => {
    throw new MayflyError('E_USAGE', `--key ${path}: it cannot be read (${(cause as Error).message})`, { cause });
  });
}

export interface ListOptions {
  readonly last?: string;
  readonly json?: boolean;
}

export async function list(io: Io, { last = '20', json }: ListOptions): Promise<number> {
  const count = Number(last);
  if (!Number.isSafeInteger(count) || count < 1 || count > limits.evidenceListMax) {
    throw new MayflyError('E_USAGE', `--last ${last}: must be 1 to ${limits.evidenceListMax}`);
  }
  const records: StoredRecord[] = [];
  for await (const stored of await recordsOf(io)) {
    records.push(stored);
    if (records.length > 2 * count) records.splice(0, records.length - count);
  }
  const shown = records.slice(-count);
  if (json === true) printJson(io, shown.map(({ record, hash }) => ({ hash, ...record })));
  else {
    const rows = shown.map(({ record }) => [
      String(record.sequence), record.runId, record.acceptedAt, record.origin?.imageName ?? '-',
      record.origin?.isolation ?? '-', verdictText(record.verdict), formatMillis(executeMillis(record)),
    ]);
    io.out(table([['#', 'RUN', 'ACCEPTED', 'IMAGE', 'UNDER', 'VERDICT', 'EXECUTED'], ...rows]));
  }
  return exitCodes.ok;
}

/** One record, with what stands beside it. */
export async function show(io: Io, run: string): Promise<number> {
  const { folder, disk } = await (await io.openApp()).evidence();
  const found = await findRecord({ folder, disk }, run);
  const objects: Record<string, unknown> = {};
  for (const digest of objectsOf(found.record)) {
    const bytes = await readObject({ folder, disk }, digest);
    objects[digest] = bytes === undefined ? null : JSON.parse(bytes.toString('utf8'));
  }
  printJson(io, { hash: found.hash, ...found.record, objects });
  return exitCodes.ok;
}

/** Rejects with E_USAGE when there is none; `run`: its id, or its number in the chain. */
async function findRecord(source: EvidenceSource, run: string): Promise<StoredRecord> {
  const sequence = /^\d{1,15}$/.test(run) ? Number(run) : undefined;
  for await (const stored of evidenceRecords(source)) {
    if (stored.record.runId === run || stored.record.sequence === sequence) return stored;
  }
  throw new MayflyError('E_USAGE', `there is no evidence of run ${run}`, {
    remedy: 'List the runs with `mayfly evidence list`.',
  });
}

async function recordsOf(io: Io): Promise<AsyncIterable<StoredRecord>> {
  const { folder, disk } = await (await io.openApp()).evidence();
  if (await disk.exists(join(folder, 'evidence.jsonl'))) return evidenceRecords({ folder, disk });
  return (async function* none(): AsyncGenerator<StoredRecord> {})();
}

async function explained<T>(path: string, work: Promise<T>): Promise<T> {
  return await work.catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause;
    throw new MayflyError('E_USAGE', `${path}: there is no evidence yet`, { cause, remedy: 'Run an event first.' });
  });
}

function verdictText(verdict: RecordedVerdict): string {
  return verdict.kind === 'accepted' ? 'accepted' : `${verdict.kind} ${verdict.code}`;
}

function executeMillis({ timeline }: StoredRecord['record']): number {
  return timeline.find(({ stage }) => stage === 'execute')?.millis ?? 0;
}
