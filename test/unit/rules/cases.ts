/** Rule files and events for the tests of rules. */
import assert from 'node:assert/strict';
import { decideCase } from '../../../src/policy.ts';
import type { SealedProfile } from '../../../src/profile/profile.ts';
import { loadRules, requireRules } from '../../../src/rules/load.ts';
import type { RuleSet } from '../../../src/rules/rule.ts';
import { anyFunction } from '../../../src/rules/suite.ts';
import type { RuleCase } from '../../../src/rules/suite.ts';

export function file(text: string, name = 'r.yaml'): { name: string; bytes: Buffer } {
  return { name, bytes: Buffer.from(text) };
}

export function rulesOf(text: string): RuleSet {
  return requireRules(loadRules([file(`rulesVersion: 1\nrules:\n${text}`)]));
}

export function caseOf(over: Partial<RuleCase> & { data?: unknown } = {}): RuleCase {
  const { data = {}, ...rest } = over;
  return {
    event: Buffer.from(JSON.stringify(data)),
    source: {},
    function: anyFunction,
    atMillis: 0,
    threat: { score: 0, level: 'low', indicators: [] },
    ...rest,
  };
}

export function profileOf(one: RuleCase, rules?: RuleSet): SealedProfile {
  const result = decideCase(one, rules);
  assert.equal(result.kind, 'profile', JSON.stringify(result));
  return (result as Extract<typeof result, { kind: 'profile' }>).sealed;
}
