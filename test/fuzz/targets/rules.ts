/** Rule files: whatever stands in them, they load or are refused, soon, and what has loaded can be evaluated. */
import assert from 'node:assert/strict';
import { decideCase } from '../../../src/policy.ts';
import { loadRules } from '../../../src/rules/load.ts';
import { anyFunction, loadTests } from '../../../src/rules/suite.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const seed = `rulesVersion: 1
data: { size: number, user: { roles: [string] } }
rules:
  - name: a
    about: text
    when: event.type == "x" && event.data.size > 10 || "r" in event.data.user.roles
    then: { raise: { limits.memoryBytes: 512M }, score: 5 }
  - name: b
    when: score > 20 && event.data.user.roles.exists(r, r.matches("^a+$")) && source.ip.inCidr("192.0.2.0/24")
    then: { lower: { limits.pids: 20 }, require: { isolation.minimum: kvm }, reject: no }
tests:
  - name: t
    event: { size: 1 }
    threat: { score: 30, indicators: [{ kind: ip }] }
    expect: { profile: { limits.pids: 20 }, reasons: [a] }
`;

const event = Buffer.from('{"size": 12, "user": {"roles": ["aa", "r"]}}');

export const rules: FuzzTarget = {
  smokeIterations: 300,
  make(random) {
    return mutate(random, Buffer.from(seed), 6);
  },
  check(input) {
    const file = { name: 'f.yaml', bytes: input };
    const loaded = loadRules([file]);
    loadTests([file], () => undefined);
    assert.equal(loaded.rules === undefined, loaded.problems.some(({ severity }) => severity === 'error'));
    const threat = { score: 30, level: 'guarded' as const, indicators: [] };
    decideCase({ event, source: { ip: '192.0.2.1' }, function: anyFunction, threat, atMillis: 0 }, loaded.rules);
  },
};
