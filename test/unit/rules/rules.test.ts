/**
 * Goal: rule files are refused with file and line, conflicts are found, and rules do to a profile what they say.
 * Method: small rule files through the real loader, one for each complaint and each effect.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '../../../src/core/limits.ts';
import { decideCase } from '../../../src/policy.ts';
import type { SealedProfile } from '../../../src/profile/profile.ts';
import { loadRules, showProblem } from '../../../src/rules/load.ts';
import { loadTests } from '../../../src/rules/suite.ts';
import { caseOf, file, profileOf, rulesOf } from './cases.ts';

function problemsOf(...texts: readonly string[]): string[] {
  const files = texts.map((text, index) => file(`rulesVersion: 1\nrules:\n${text}`, `${index}.yaml`));
  return loadRules(files).problems.map((problem) => `${problem.severity} ${showProblem(problem)}`);
}

// ---- loading --------------------------------------------------------------------------------------------------------

test('what cannot be a rule is refused with file, line and a hint', () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    [
      '- name: a\n  when: event.tpye == "x"\n  then: { score: 1 }',
      /^error 0\.yaml:4: when: event has no tpye.*did you mean type/,
    ],
    [
      '- name: a\n  when: true\n  then: { lower: { limits.pid: 1 } }',
      /0\.yaml:5: .*no limits\.pid .*did you mean limits\.pids/,
    ],
    ['- name: a\n  when: true\n  then: { raise: { isolation.minimum: kvm } }', /0\.yaml:5: .*changed with require/],
    [
      '- name: a\n  when: true\n  then: { lower: { limits.pids: 64M } }',
      /0\.yaml:5: limits\.pids: it must be written as in 64/,
    ],
    ['- name: a\n  when: true\n  then: { lower: { limits.memoryBytes: 1M } }', /out of bounds: 96 MiB to 4096 MiB/],
    ['- name: a\n  when: true\n  then: {}', /then has no effect/],
    ['- name: A B\n  when: true\n  then: { score: 1 }', /lower-case/],
    ['- name: a\n  when: true\n  then: { score: 0 }', /1 to 100/],
    ['- name: a\n  then: { score: 1 }', /needs when/],
    ['- name: a\n  when: true\n  then: { forensics: perhaps }', /forensics.capture: it must be never or sample or/],
    ['- name: a\n  when: true\n  then: { allow: { destinations: [x] } }', /then.allow must be a list/],
    ['- name: a\n  when: true\n  then: { allow: ["a b"] }', /0\.yaml:5: then.allow: it: "a b" is no host, address/],
    ['- name: a\n  when: true\n  then: { allow: [{ to: a.example, prots: [1] }] }', /unknown field "prots"/],
    ['- name: a\n  when: true\n  then: { allow: ["*.com"] }', /would allow everyone/],
    ['- name: a\n  when: score > 50\n  then: { allow: [a.example] }', /permits more/],
    ['- name: a\n  when: score < 50\n  then: { deny: [a.example] }', /would fall away/],
    [
      '- name: a\n  when: true\n  then: { allow: [x.a.example] }\n'
        + '- name: b\n  when: true\n  then: { deny: ["*.a.example"] }',
      /error 0\.yaml:3: rule a allows x\.a\.example: rule b \(0\.yaml:6\) denies it whenever it applies/,
    ],
    ['- &x { name: a, when: true, then: { score: 1 } }\n- *x', /0\.yaml:4: a rule must be written out/],
    ['- name: a\n  name: b\n  when: true\n  then: { score: 1 }', /0\.yaml:4: a rule has name twice/],
    ['- [', /not valid YAML/],
    ['- name: a\n  when: [1]\n  then: { score: 1 }', /when must be a single value/],
    [
      '- name: a\n  when: true\n  then: { raise: { limits.pids: 9 }, lower: { limits.pids: 8 } }',
      /both raised and lowered/,
    ],
    ['- name: a\n  when: score < 50\n  then: { lower: { limits.pids: 8 } }', /would fall away/],
    ['- name: a\n  when: score > 50\n  then: { raise: { limits.pids: 8 } }', /permits more/],
    ['- name: a\n  when: level == "high"\n  then: { lower: { limits.pids: 8 } }', /not clear/],
    ['- name: a\n  when: size(indicators) == 1\n  then: { reject: x }', /not clear/],
    ['- name: a\n  when: "!indicators.exists(i, true)"\n  then: { reject: x }', /would fall away/],
  ];
  for (const [text, wanted] of cases) {
    const found = problemsOf(text);
    assert.ok(
      found.some((line) => wanted.test(line)),
      `${text}\n${found.join('\n')}`,
    );
  }
});

test('what a rule may say about the threat', () => {
  const fine = [
    '- name: a\n  when: score >= 50 || level in ["high", "critical"]\n  then: { lower: { limits.pids: 8 } }',
    '- name: a\n  when: level != "low" && indicators.exists(i, i.severity == "high")\n  then: { reject: x }',
    '- name: a\n  when: "!(score > 20) && level == \\"low\\""\n  then: { raise: { limits.pids: 200 } }',
    '- name: a\n  when: indicators.filter(i, i.kind == "ip").size() > 2\n  then: { score: 10 }',
    '- name: a\n  when: level != "critical"\n  then: { raise: { limits.pids: 200 } }',
  ];
  for (const text of fine) assert.deepEqual(problemsOf(text), [], text);
});

test('conflicts: both lines are named, a dead effect is an error, rules that exclude each other are none', () => {
  const raise = (name: string, when: string): string =>
    `- name: ${name}\n  when: ${when}\n  then: { raise: { limits.pids: 500 } }\n`;
  const lower = (name: string, when: string): string =>
    `- name: ${name}\n  when: ${when}\n  then: { lower: { limits.pids: 10 } }\n`;
  assert.match(
    problemsOf(raise('a', 'event.type == "x"'), lower('b', 'event.source == "y"')).join(),
    /^warning 0\.yaml:3: rule a raises limits\.pids to 500: rule b \(1\.yaml:3\) lowers it to 10; .* 10 counts$/,
  );
  assert.match(
    problemsOf(raise('a', 'event.type == "x"'), lower('b', 'true')).join(),
    /^error .*can never have that effect/,
  );
  assert.match(problemsOf(raise('a', 'event.id == "1"') + lower('b', 'event.id == "1"')).join(), /^error /);
  assert.deepEqual(
    problemsOf(raise('a', 'event.type == "x"') + lower('b', 'event.type in ["y", "z"] && event.bytes > 1')),
    [],
  );
  assert.match(problemsOf(lower('a', 'true') + lower('a', 'true')).join(), /the name a is taken by 0\.yaml:3/);
});

test('bounds: files that are too large, rules that are too many, YAML that nests too deeply', () => {
  const large = { name: 'l.yaml', bytes: Buffer.alloc(limits.ruleFileBytesMax + 1, 0x20) };
  assert.match(loadRules([large]).problems.map(showProblem).join(), /larger than/);
  const rules = Array.from(
    { length: 1001 },
    (_, index) => `- { name: r${index}, when: true, then: { score: 1 } }`,
  ).join('\n');
  assert.match(problemsOf(rules).join(), /more than 1000 rules/);
  for (const deep of [
    '['.repeat(100_000),
    '{a: '.repeat(20_000),
    '- '.repeat(50_000),
    '&a *a',
    '!!js/function x',
    '\u0000',
  ]) {
    assert.equal(loadRules([file(deep)]).rules, undefined);
  }
  assert.equal(loadRules([file('a: &a [x,x]\nb: &b [*a,*a]\nrulesVersion: *b')]).rules, undefined);
});

test('declared data: a misspelt or mistyped field is found when the rules are loaded', () => {
  const scoring = (when: string): string => `rules:\n- name: a\n  when: ${when}\n  then: { score: 1 }`;
  const declared = (when: string): string[] =>
    loadRules([
      file(`rulesVersion: 1\ndata: { size: number, user: { name: string, roles: [string] } }\n${scoring(when)}`),
    ]).problems.map(({ message }) => message);
  assert.deepEqual(declared('event.data.size > 1 && "x" in event.data.user.roles'), []);
  assert.match(declared('event.data.sise > 1').join(), /event\.data has no sise \(did you mean size\?\)/);
  assert.match(declared('event.data.user.name > 1').join(), /does not compare string with int/);
});

// ---- effects --------------------------------------------------------------------------------------------------------

test('a rule chooses an image by name, and only where more threat keeps it chosen', () => {
  const choosing = (when: string, image = 'shell'): string => `- { name: a, when: ${when}, then: { image: ${image} } }`;
  assert.deepEqual(problemsOf(choosing('score > 50')), []);
  assert.match(problemsOf(choosing('score < 50')).join(), /becomes false as the threat grows/);
  assert.match(problemsOf(choosing('true', '"node:old"')).join(), /the name of an image, without a tag/);
});

test('raise, lower, require, score and reject do what they say, with reasons that name the rule and its line', () => {
  const rules = rulesOf(`
- name: room
  when: event.data.size > 10
  then: { raise: { limits.memoryBytes: 1G, limits.wallMillis: 2m } }
- name: tight
  when: event.data.size > 100
  then: { lower: { limits.memoryBytes: 128M, limits.cpuQuotaMicros: 50% }, require: { isolation.minimum: kvm } }
- name: odd
  when: event.data.size > 1000
  then: { score: 45 }
- name: no
  when: event.data.size > 10000
  then: { reject: too much }
`);
  const at = (size: number): SealedProfile => profileOf(caseOf({ data: { size } }), rules);
  assert.deepEqual(
    [at(1).profile.limits.memoryBytes, at(1).profile.isolation.minimum],
    [limits.memoryBytesDefault, 'tcg'],
  );
  assert.deepEqual([at(11).profile.limits.memoryBytes, at(11).profile.limits.wallMillis], [1024 ** 3, 120_000]);
  const tight = at(101);
  assert.deepEqual([tight.profile.limits.memoryBytes, tight.profile.limits.cpuQuotaMicros], [128 * 1024 ** 2, 50_000]);
  assert.equal(tight.profile.isolation.minimum, 'kvm');
  const reasons = tight.reasons.filter(({ field }) => field === 'limits.memoryBytes');
  assert.deepEqual(
    reasons.map(({ because, overruled }) => [because, overruled]),
    [
      ['default', true],
      ['rule room (r.yaml:4) allows 1024 MiB', true],
      ['rule tight (r.yaml:7) allows at most 128 MiB', undefined],
    ],
  );
  assert.equal(at(1001).reasons[0]?.because, 'score 45 of 100, level elevated');
  assert.equal(at(1001).profile.limits.wallMillis, 60_000);
  const refused = decideCase(caseOf({ data: { size: 10_001 } }), rules);
  assert.deepEqual(refused, { kind: 'rejected', message: 'rule no (r.yaml:13): too much' });
});

test('a rule that fails restricts and does not permit, and says why', () => {
  const rules = rulesOf(`
- name: both
  when: event.data.missing > 1
  then: { raise: { limits.pids: 999 }, lower: { limits.memoryBytes: 100M } }
- name: zero
  when: 1 / (event.bytes - event.bytes) > 0
  then: { lower: { limits.openFiles: 20 } }
- name: endless
  when: event.data.list.all(a, event.data.list.all(b, a <= b || true))
  then: { lower: { limits.wallMillis: 1s } }
`);
  const { profile, reasons } = profileOf(caseOf({ data: { list: Array.from({ length: 1000 }, () => 1) } }), rules);
  assert.deepEqual(
    [profile.limits.pids, profile.limits.memoryBytes, profile.limits.openFiles, profile.limits.wallMillis],
    [limits.pidsDefault, 100 * 1024 ** 2, 20, 1000],
  );
  const texts = reasons
    .filter(({ field }) => field === 'rules')
    .map(({ because }) => because)
    .join('\n');
  for (const why of [/rule both .* failed.*has no missing/, /rule zero .* division by zero/, /rule endless .* steps/])
    assert.match(texts, why);
  const refused = rulesOf('- name: no\n  when: event.data.x == 1\n  then: { reject: x }');
  assert.equal(decideCase(caseOf(), refused).kind, 'rejected');
});

test('rules allow and deny destinations, and require forensics; a rule that fails only denies', () => {
  const rules = rulesOf(`
- name: backend
  when: event.data.size < 100
  then: { allow: [api.example.com:443, { to: "db.example:5432", cidr: 192.0.2.0/24 }] }
- name: not-there
  when: score >= 40
  then: { deny: ["*.example.com"], forensics: always }
- name: fails
  when: event.data.missing == 1
  then: { allow: [other.example], deny: [198.51.100.0/24] }
`);
  const at = (size: number, score: number) =>
    profileOf(caseOf({ data: { size }, threat: { score, level: 'low', indicators: [] } }), rules);
  const calm = at(1, 0);
  assert.deepEqual(calm.profile.network.rules, [
    { action: 'allow', host: 'api.example.com', ports: [[443, 443]] },
    { action: 'allow', host: 'db.example', cidr: '192.0.2.0/24', ports: [[5432, 5432]] },
    { action: 'deny', cidr: '198.51.100.0/24' },
  ]);
  assert.equal(calm.profile.forensics.capture, 'never');
  const said = calm.reasons.filter(({ field }) => field === 'network').map(({ because }) => because);
  assert.ok(said.includes('rule backend (r.yaml:4) allows api.example.com:443'), said.join('; '));
  const threatened = at(1, 50).profile;
  assert.deepEqual(threatened.network.rules.filter(({ action }) => action === 'deny').map(({ host }) => host),
    [undefined, '*.example.com']);
  assert.equal(threatened.forensics.capture, 'always');
  assert.equal(at(1000, 0).profile.network.mode, 'none', 'nothing is allowed: there is nothing to deny');
});

test('when the steps of an event are used up, the rules that are left restrict', () => {
  const greedy = Array.from({ length: 12 }, (_, index) => {
    const when = '"event.data.all(a, event.data.all(b, true))"';
    return `- { name: r${index + 10}, when: ${when}, then: { raise: { limits.pids: 999 } } }`;
  });
  const rules = rulesOf(
    `${greedy.join('\n')}\n- name: z\n  when: event.type == "none"\n  then: { lower: { limits.openFiles: 20 } }`,
  );
  const { profile } = profileOf(caseOf({ data: Array.from({ length: 1000 }, () => 1) }), rules);
  assert.deepEqual([profile.limits.pids, profile.limits.openFiles], [limits.pidsDefault, 20]);
});

// ---- tests of customers ---------------------------------------------------------------------------------------------

test('tests in rule files: read with their problems', () => {
  const suite = loadTests(
    [
      file(`rulesVersion: 1
tests:
  - name: one
    event: { a: 1 }
    source: { ip: 192.0.2.1 }
    threat: { score: 70, indicators: [{ kind: ip }] }
    at: 2026-01-01T00:00:00Z
    expect: { profile: { limits.pids: 64 }, level: high, reasons: [x] }
  - name: two
    event: nowhere.json
    expect: { profile: { limits.pid: 64 } }
  - name: three
    event: {}
    threat: { level: worst }
    expect: {}
`),
    ],
    () => undefined,
  );
  assert.deepEqual(
    suite.tests.map(({ name, atMillis, threat }) => [name, atMillis, threat.level, threat.indicators.length]),
    [['one', Date.UTC(2026, 0, 1), 'high', 1]],
  );
  assert.deepEqual(
    suite.problems.map(({ line }) => line),
    [10, 11, 14],
  );
});
