/** A rule after loading: checked, compiled, and with the place it comes from. */
import { canonicalJson, digestOf } from '../core/json.ts';
import type { NetworkRule } from '../profile/network.ts';
import type { Wish } from '../profile/order.ts';
import type { Expression } from './cel/compile.ts';

export interface Place {
  /** As the operator named it. */
  readonly file: string;
  /** From 1. */
  readonly line: number;
}

export interface Rule {
  readonly name: string;
  readonly place: Place;
  /** The text of the condition. */
  readonly when: string;
  readonly condition: Expression;
  readonly effects: Effects;
}

export interface Effects {
  readonly wishes: readonly Omit<Wish, 'by'>[];
  /** What may be connected to, and what may not. */
  readonly destinations?: readonly NetworkRule[];
  /** Added to the threat score, 1 to 100; undefined for none. */
  readonly score?: number;
  /** The image that the event runs in. */
  readonly image?: string;
  /** Why the event is refused. */
  readonly reject?: string;
}

export interface RuleSet {
  /** Sorted by name, so that nothing depends on the order of files and lines. */
  readonly rules: readonly Rule[];
  /** `sha256:` and 64 hex digits over names, conditions and effects: the same for the same rules in any order. */
  readonly digest: string;
}

/** What is wrong with, or remarkable about, a rule file. */
export interface RuleProblem {
  readonly file: string;
  readonly line: number;
  /** Only an `error` keeps the rules from being used. */
  readonly severity: 'error' | 'warning';
  readonly message: string;
}

export function makeRuleSet(rules: readonly Rule[]): RuleSet {
  const sorted = [...rules].sort((a, b) => (a.name < b.name ? -1 : 1));
  const content = sorted.map(({ name, when, effects }) => ({ name, when, effects }));
  return { rules: sorted, digest: digestOf(canonicalJson(content)) };
}

export function showPlace({ file, line }: Place): string {
  return `${file}:${line}`;
}
