/**
 * Finds records that were edited, removed, inserted, reordered or signed by somebody else, and names the first. Pure.
 *
 * The head, signed on its own after every record, says how long the chain is: records that were cut off its end are
 * missed. Whoever can put an older head back as well is found by a hash that is kept elsewhere: `mayfly run --json`
 * prints one for every event, and it can be passed here as a witness.
 */
import { verify } from 'node:crypto';
import { canonicalJson, digestOf, isObject } from '../core/json.ts';
import type { PublicKeys, Signature } from '../image/envelope.ts';
import { chainStart, HEAD_KIND, hashOfLine, objectsOf, RECORD_KIND, signedMessage } from './record.ts';
import type { EvidenceRecord } from './record.ts';

export type ChainCheck =
  | {
      readonly ok: true;
      readonly records: number;
      /** Records of version 1, which had no signature; they can only stand before all others. */
      readonly unsigned: number;
      /** Hash of the last record. */
      readonly head: string;
      /** The file ends in half a line: a crash, cut off by the next writer. */
      readonly torn: boolean;
    }
  | {
      readonly ok: false;
      /** First bad record, by its line from 1; one more than there are when it is missing at the end. */
      readonly line: number;
      /** The run that the line claims to be of; undefined when it says none. */
      readonly runId?: string;
      readonly reason: string;
    };

type Broken = Extract<ChainCheck, { ok: false }>;

export interface ChainOptions {
  /** Keys that may have signed. */
  readonly keys: PublicKeys;
  /** A record's hash known from elsewhere: it must be in the chain. */
  readonly witness?: string;
  /** Content of head.json; undefined when there is none. */
  readonly head?: string;
}

/** One line after another, then `end`. After the first bad one it stays with that. */
export class ChainVerifier {
  readonly #options: ChainOptions;
  #broken: Broken | undefined;
  #records = 0;
  #unsigned = 0;
  #head = chainStart;
  #witnessed: boolean;
  readonly #objects = new Map<string, number>();
  /** Hashes of the records that head.json may point to are not kept: only the one at its place. */
  #atHead: string | undefined;
  readonly #claimed: { readonly sequence: number; readonly hash: string } | 'none' | 'bad';

  constructor(options: ChainOptions) {
    this.#options = options;
    this.#witnessed = options.witness === undefined;
    this.#claimed = headOf(options);
  }

  /** The first bad record so far. */
  get broken(): Broken | undefined {
    return this.#broken;
  }

  /** Objects that the records refer to, each with the line of the first that does. */
  get objects(): ReadonlyMap<string, number> {
    return this.#objects;
  }

  push(line: string): void {
    if (this.#broken !== undefined) return;
    const sequence = this.#records;
    const reason = this.#refuse(line, sequence);
    if (reason !== undefined) {
      const runId = claimedRun(line);
      this.#broken = { ok: false, line: sequence + 1, ...(runId === undefined ? {} : { runId }), reason };
      return;
    }
    this.#head = hashOfLine(line);
    this.#records += 1;
    if (this.#head === this.#options.witness) this.#witnessed = true;
    if (typeof this.#claimed === 'object' && this.#claimed.sequence === sequence) this.#atHead = this.#head;
  }

  end(torn: boolean): ChainCheck {
    if (this.#broken !== undefined) return this.#broken;
    const missing = this.#missing();
    if (missing !== undefined) return { ok: false, line: this.#records + 1, reason: missing };
    return { ok: true, records: this.#records, unsigned: this.#unsigned, head: this.#head, torn };
  }

  /** Undefined when the line is the record of that place. */
  #refuse(line: string, sequence: number): string | undefined {
    let record: unknown;
    try {
      record = JSON.parse(line);
    } catch {
      return 'is not JSON';
    }
    if (!isObject(record)) return 'is not a record';
    if (record['sequence'] !== sequence) return `has sequence ${String(record['sequence'])}, expected ${sequence}`;
    if (record['previous'] !== this.#head) return 'does not carry the hash of the record before it';
    if (!isCanonical(record, line)) return 'is not in canonical form';
    if (record['evidenceVersion'] === 1) {
      if (this.#unsigned < sequence) return 'is not signed, and records before it are';
      this.#unsigned += 1;
      return undefined;
    }
    if (record['evidenceVersion'] !== 2) return `has version ${String(record['evidenceVersion'])}`;
    const unfit = refuseSignature(RECORD_KIND, record, this.#options.keys);
    if (unfit !== undefined) return unfit;
    for (const digest of objectsOf(record as unknown as EvidenceRecord)) {
      if (!this.#objects.has(digest)) this.#objects.set(digest, sequence + 1);
    }
    return undefined;
  }

  #missing(): string | undefined {
    const claimed = this.#claimed;
    if (claimed === 'bad') return 'head.json is not what this machine signed';
    // A crash right after the very first record leaves none.
    if (claimed === 'none' && this.#records - this.#unsigned > 1) {
      return 'head.json is missing, so records may be missing after the last one';
    }
    if (typeof claimed === 'object' && claimed.sequence >= this.#records) {
      const lost = claimed.sequence - this.#records + 1;
      return `${lost} ${lost === 1 ? 'record is' : 'records are'} missing at the end`;
    }
    if (typeof claimed === 'object' && this.#atHead !== claimed.hash) {
      return `record ${claimed.sequence} is not the one that head.json was signed for`;
    }
    return this.#witnessed ? undefined : 'the witnessed record is missing';
  }
}

/** Of a whole file. */
export function verifyChain(text: string, options: ChainOptions): ChainCheck {
  const lines = text.split('\n');
  const torn = lines.pop() !== '';
  const verifier = new ChainVerifier(options);
  for (const line of lines) verifier.push(line);
  return verifier.end(torn);
}

/** The objects that records refer to are compared by whoever can read them. */
export function isObjectIntact(digest: string, bytes: Buffer | undefined): boolean {
  return bytes !== undefined && digestOf(bytes) === digest;
}

function headOf({ head, keys }: ChainOptions): { readonly sequence: number; readonly hash: string } | 'none' | 'bad' {
  if (head === undefined) return 'none';
  try {
    const found: unknown = JSON.parse(head);
    if (!isObject(found) || refuseSignature(HEAD_KIND, found, keys) !== undefined) return 'bad';
    const { sequence, hash } = found;
    return Number.isSafeInteger(sequence) && typeof hash === 'string' ? { sequence: Number(sequence), hash } : 'bad';
  } catch {
    return 'bad';
  }
}

type Signed = { readonly [name: string]: unknown };

function refuseSignature(kind: string, signed: Signed, keys: PublicKeys): string | undefined {
  const signature = signed['signature'];
  if (!isObject(signature)) return 'is not signed';
  const { keyId, value } = signature as unknown as Signature;
  const key = keys.get(String(keyId));
  if (key === undefined) return `is signed by another key, ${String(keyId).slice(0, 30)}`;
  const fits = verify(null, signedMessage(kind, signed), key, Buffer.from(String(value), 'base64'));
  return fits ? undefined : 'was changed after it was signed';
}

function isCanonical(record: object, line: string): boolean {
  try {
    return canonicalJson(record) === line;
  } catch {
    return false;
  }
}

/** Only to find it again: the line is not believed. */
function claimedRun(line: string): string | undefined {
  return /"runId":"([0-9A-Za-z-]{1,40})"/.exec(line)?.[1];
}
