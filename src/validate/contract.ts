/**
 * What a caller demands of an output beyond that it is one: its schema, its type, what must not be in it, and how it is
 * to be made harmless for whoever shows it. Everything absent is not demanded.
 */
import type { SchemaChecker } from './schema.ts';

/** Something to be harmless in. `html`: a page. `ansi`: a terminal. `csv`: a spreadsheet, which runs formulas. */
export type Audience = 'html' | 'ansi' | 'csv';

export interface OutputContract {
  readonly schema?: SchemaChecker;
  /** Media types that a raw output may be of by its bytes, as in `image/png` or `image/*`. */
  readonly types?: readonly string[];
  /** Media type that a raw output is said to be of; a contradiction with its bytes withholds it. */
  readonly declaredType?: string;
  /** Secrets of the tenant, name to value: none of them may come out, in any common encoding. */
  readonly secrets?: ReadonlyMap<string, string>;
  /** Texts that are in no honest output. */
  readonly canaries?: readonly string[];
  /** What looks like somebody's credential: `note` (default) or `withhold`. */
  readonly credentials?: 'note' | 'withhold';
  readonly neutralise?: readonly Audience[];
  /** Resolves to what the output has in common with threat intelligence, a line each. */
  readonly indicators?: (output: ExaminedOutput) => Promise<readonly string[]>;
  /** The customer's own check, in a clone of its own. Rejects when it gave no answer. */
  readonly validator?: (output: ExaminedOutput) => Promise<ValidatorAnswer>;
}

export interface ExaminedOutput {
  readonly bytes: Buffer;
  /** Undefined when the output is any bytes. */
  readonly value: unknown;
  /** Media type by its bytes. */
  readonly type: string;
}

export interface ValidatorAnswer {
  readonly accept: boolean;
  /** Hostile: the customer's code wrote it, on a guest's output. */
  readonly reason: string;
}
