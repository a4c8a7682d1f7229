/** What the command line is told about the circumstances of an event: its rules, its sender, its threat. */
import { MayflyError } from '../core/errors.ts';
import type { PolicyInput } from '../policy.ts';
import { levelOf } from '../profile/levels.ts';
import type { EventSource, Threat } from '../rules/context.ts';
import { readRuleFiles } from '../rules/files.ts';
import { loadRules, requireRules, showProblem } from '../rules/load.ts';
import type { RuleSet } from '../rules/rule.ts';
import type { Io } from './io.ts';

export interface FactOptions {
  readonly rules?: string;
  readonly from?: readonly string[];
  readonly score?: string;
}

/** Rejects with E_USAGE or E_RULES_INVALID; undefined when nothing was given. */
export async function policyOf(io: Io, { rules, from, score }: FactOptions): Promise<PolicyInput | undefined> {
  const source = sourceOf(from ?? []);
  const threat = score === undefined ? undefined : threatOf(score);
  const set = rules === undefined ? undefined : await rulesOf(io, rules);
  if (set === undefined && threat === undefined && from === undefined) return undefined;
  return { source, ...(set === undefined ? {} : { rules: set }), ...(threat === undefined ? {} : { threat }) };
}

/** Warnings go to stderr. */
export async function rulesOf(io: Io, path: string): Promise<RuleSet> {
  const loaded = loadRules(await readRuleFiles(path));
  const rules = requireRules(loaded);
  for (const problem of loaded.problems) io.err(`mayfly: warning: ${showProblem(problem)}\n`);
  return rules;
}

const KNOWN = ['ip', 'asn', 'tenant', 'principal'] as const;

export function sourceOf(facts: readonly string[]): EventSource {
  const source: Partial<Record<(typeof KNOWN)[number], string>> = {};
  for (const fact of facts) {
    const at = fact.indexOf('=');
    const name = KNOWN.find((each) => each === fact.slice(0, at));
    if (name === undefined)
      throw new MayflyError('E_USAGE', `--from ${fact}: must be one of ${KNOWN.join(', ')}, as in ip=192.0.2.1`);
    source[name] = fact.slice(at + 1);
  }
  return source;
}

function threatOf(text: string): Threat {
  const score = Number(text);
  if (text.trim() === '' || !(score >= 0 && score <= 100))
    throw new MayflyError('E_USAGE', `--score ${text}: must be 0 to 100`);
  return { score, level: levelOf(score), indicators: [] };
}
