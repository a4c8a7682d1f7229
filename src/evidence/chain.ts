/**
 * Finds records that were edited, removed, inserted or reordered. The last records can be cut off without breaking the
 * chain, as with any log that has no outside witness: keep a hash that `mayfly run --json` printed, and pass it here.
 */
import { canonicalJson } from '../core/json.ts';
import { chainStart, hashOfLine } from './record.ts';

export type ChainCheck =
  | {
      readonly ok: true;
      readonly records: number;
      /** Hash of the last record. */
      readonly head: string;
      /** The file ends in half a line: a crash, cut off by the next writer. */
      readonly torn: boolean;
    }
  | { readonly ok: false; readonly line: number; readonly reason: string };

export interface ChainOptions {
  /** A record's hash known from elsewhere: it must be in the chain. */
  readonly witness?: string;
}

export function verifyChain(text: string, { witness }: ChainOptions = {}): ChainCheck {
  const lines = text.split('\n');
  const torn = lines.pop() !== '';
  let head = chainStart;
  let witnessed = witness === undefined;
  for (const [sequence, line] of lines.entries()) {
    const reason = refuse(line, sequence, head);
    if (reason !== undefined) return { ok: false, line: sequence + 1, reason };
    head = hashOfLine(line);
    if (head === witness) witnessed = true;
  }
  if (!witnessed) return { ok: false, line: lines.length, reason: 'the witnessed record is missing' };
  return { ok: true, records: lines.length, head, torn };
}

/** Undefined when the line is the record of that place. */
function refuse(line: string, sequence: number, previous: string): string | undefined {
  let record: unknown;
  try {
    record = JSON.parse(line);
  } catch {
    return 'is not JSON';
  }
  if (typeof record !== 'object' || record === null) return 'is not a record';
  const found = record as { readonly sequence?: unknown; readonly previous?: unknown };
  if (found.sequence !== sequence) return `has sequence ${String(found.sequence)}, expected ${sequence}`;
  if (found.previous !== previous) return 'does not carry the hash of the record before it';
  return canonicalJson(record) === line ? undefined : 'is not in canonical form';
}
