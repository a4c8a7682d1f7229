/** A compiled part of an expression: its type, what it does, and what is known about it without running it. */
import type { ThreatSense } from './threat.ts';
import type { CelType } from './type.ts';
import type { CelFailure, Scope } from './value.ts';

export type Run = (scope: Scope) => unknown;

export interface Node {
  readonly type: CelType;
  readonly run: Run;
  readonly threat: ThreatSense;
  /** The value of a literal, or of a list of literals. */
  readonly literal?: unknown;
  /** Dotted path of a plain member of the context, as in `event.data.size`. */
  readonly path?: string;
  /** Paths that must have one of these values, or the expression is false: shows that two rules exclude each other. */
  readonly demands?: Demands;
}

export type Demands = ReadonlyMap<string, ReadonlySet<unknown>>;

/** What is wrong with an expression, and where in it. */
export class CelProblem extends Error {
  override readonly name = 'CelProblem';
  /** Characters from its beginning; undefined when it is about the whole. */
  readonly offset: number | undefined;

  constructor(message: string, offset?: number) {
    super(message);
    this.offset = offset;
  }
}

/** Throws CelProblem when there are fewer. */
export function pick(args: readonly Node[], index: number): Node {
  const node = args[index];
  if (node === undefined) throw new CelProblem('an argument is missing');
  return node;
}

export type Outcome = boolean | CelFailure;
