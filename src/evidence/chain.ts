/**
 * Finds records that were edited, removed, inserted or reordered. The last records can be cut off without breaking the
 * chain, as with any log that has no outside witness: keep a hash that `mayfly run --json` printed, and pass it here.
 */
import { canonicalJson } from '../core/json.ts';
import { chainStart, hashOfLine } from './record.ts';

export type ChainCheck =
  | { readonly ok: true; readonly records: number; readonly head: string; readonly torn: boolean }
  | { readonly ok: false; readonly line: number; readonly reason: string };

export interface ChainOptions {
  /** A record's hash known from elsewhere: it must be in the chain. */
  readonly witness?: string;
}

/** Incremental, so that a file of any size can be verified in pieces. */
export class ChainVerifier {
  #sequence = 0;
  #head = chainStart;
  #witnessed: boolean;
  readonly #witness: string | undefined;

  constructor({ witness }: ChainOptions = {}) {
    this.#witness = witness;
    this.#witnessed = witness === undefined;
  }

  get head(): string {
    return this.#head;
  }

  get records(): number {
    return this.#sequence;
  }

  get witnessed(): boolean {
    return this.#witnessed;
  }

  /** Undefined when the line continues the chain, otherwise why not. */
  add(line: string): string | undefined {
    let record: unknown;
    try {
      record = JSON.parse(line);
    } catch {
      return 'not JSON';
    }
    if (typeof record !== 'object' || record === null) return 'not a record';
    const { sequence, previous } = record as { readonly sequence?: unknown; readonly previous?: unknown };
    if (sequence !== this.#sequence) return `has sequence ${String(sequence)}, expected ${this.#sequence}`;
    if (previous !== this.#head) return 'does not carry the hash of the record before it';
    if (canonicalJson(record) !== line) return 'is not in canonical form';
    this.#sequence += 1;
    this.#head = hashOfLine(line);
    if (this.#head === this.#witness) this.#witnessed = true;
    return undefined;
  }
}

export function verifyChain(text: string, options: ChainOptions = {}): ChainCheck {
  const lines = text.split('\n');
  const torn = lines.pop() !== '';
  const verifier = new ChainVerifier(options);
  for (const [index, line] of lines.entries()) {
    const reason = verifier.add(line);
    if (reason !== undefined) return { ok: false, line: index + 1, reason };
  }
  if (!verifier.witnessed) return { ok: false, line: lines.length, reason: 'the witnessed record is missing' };
  return { ok: true, records: verifier.records, head: verifier.head, torn };
}
