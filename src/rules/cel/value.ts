/**
 * Values while a rule runs, and the account of its steps.
 *
 * A failure is a value, not an exception: CEL's `&&` and `||` look at both sides before they give up, and an exception
 * for each rule that meets an event without its field would cost more than all other rules together.
 */
import { isObject } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';

export class CelFailure {
  readonly message: string;

  constructor(message: string) {
    this.message = message;
  }
}

/** One evaluation: values of the variables by slot, and the steps that are left. */
export interface Scope {
  readonly vars: unknown[];
  steps: number;
}

export const exhausted = new CelFailure(`it takes more than ${limits.ruleStepsMax} steps`);

/** Takes steps from the account; false when it is overdrawn, and then nothing more may be done. */
export function spend(scope: Scope, steps: number): boolean {
  scope.steps -= steps;
  return scope.steps >= 0;
}

/** Characters that one step pays for, by what is done with them: about 50 ns each. */
export const charactersPerStep = { searched: 1024, copied: 256, matched: 4 } as const;

export function textSteps(text: string, perStep: number): number {
  return 1 + Math.floor(text.length / perStep);
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return isObject(value) && !(value instanceof CelFailure);
}

export function nameOfValue(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** CEL equality over JSON values; paid for by each element that is looked at. */
export function equals(scope: Scope, a: unknown, b: unknown): boolean | CelFailure {
  if (typeof a === 'string' && typeof b === 'string') {
    if (!spend(scope, textSteps(a, charactersPerStep.searched))) return exhausted;
    return a === b;
  }
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const [left, right] = Array.isArray(a) ? [a, b as unknown[]] : [Object.entries(a), Object.entries(b)];
  if (!spend(scope, left.length + right.length)) return exhausted;
  if (left.length !== right.length) return false;
  for (const [index, item] of left.entries()) {
    const [one, other] = Array.isArray(a) ? [item, right[index]] : pairOf(item as [string, unknown], b);
    const same = equals(scope, one, other);
    if (same !== true) return same;
  }
  return true;
}

const ABSENT = Symbol('absent');

function pairOf([key, value]: [string, unknown], other: object): [unknown, unknown] {
  return [value, Object.hasOwn(other, key) ? (other as Record<string, unknown>)[key] : ABSENT];
}

/** Below 0, 0 or above it; undefined for what has no order. */
export function compare(a: unknown, b: unknown): number | undefined {
  if (typeof a === 'number' && typeof b === 'number') return a < b ? -1 : a > b ? 1 : a === b ? 0 : undefined;
  if (typeof a === 'string' && typeof b === 'string') return a < b ? -1 : a > b ? 1 : 0;
  return undefined;
}
